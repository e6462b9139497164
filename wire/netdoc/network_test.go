package netdoc

import (
	"bytes"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"
)

const networkFileText = `{
  "version": 1,
  "name": "testnet",
  "authorities": [
    {
      "nickname": "authority1",
      "id": "ID0",
      "addresses": [
        "127.0.0.1:7001"
      ]
    },
    {
      "nickname": "authority2",
      "id": "ID1",
      "addresses": [
        "127.0.0.1:7002"
      ]
    }
  ],
  "parameters": {
    "round": "5s",
    "start": "2026-09-21T14:13:20Z",
    "initial_round": "250ms",
    "initial_rounds": 8,
    "min_relays": 5,
    "per_address": 0,
    "subnet_rule": false,
    "onion_key_lifetime": "24h0m0s"
  }
}
`

// networkText returns the file's text with its first authorities' IDs filled in.
func networkText(n *Network) string {
	return strings.NewReplacer("ID0", n.Authorities[0].ID.String(), "ID1", n.Authorities[1].ID.String()).Replace(networkFileText)
}

func TestNetworkFile(t *testing.T) {
	n, _ := testNetwork(2)
	text := networkText(n)
	if got := string(n.Marshal()); got != text {
		t.Errorf("got\n%s\nwant\n%s", got, text)
	}
	for i := range n.Authorities {
		if a, ok := n.Authority(n.Authorities[i].ID); !ok || a != &n.Authorities[i] {
			t.Errorf("authority %d is not found", i)
		}
	}
	if _, ok := n.Authority(DigestOf([]byte("nobody")).id()); ok {
		t.Error("a stranger is an authority")
	}
	if p := n.Params.Consensus(); p != (ConsensusParams{MinRelays: 5, OnionKeyLifetime: Duration(24 * time.Hour)}) {
		t.Errorf("parameters to vote for: %+v", p)
	}
}

func (d Digest) id() [32]byte { return d }

// Other ways to write the same network.
func TestNetworkFileOtherForms(t *testing.T) {
	n, _ := testNetwork(2)
	for from, to := range map[string]string{
		"\n":                        "\r\n",
		"  ":                        "",
		`"5s"`:                      `"5000ms"`,
		`"24h0m0s"`:                 `"24h"`,
		`"2026-09-21T14:13:20Z"`:    `"2026-09-21T16:13:20.000+02:00"`,
		`"per_address": 0`:          `"valid": "0s", "per_address": 0`,
		`"127.0.0.1:7002"`:          `"127.0.0.1:7002"`,
		`"name": "testnet",`:        ``,
		`"subnet_rule": false`:      `"subnet_rule": false `,
		"{\n  \"version\": 1,\n":    "{ \"name\": \"testnet\", \"version\": 1,",
		`"nickname": "authority1",`: `"nickname": "authority\u0031",`,
	} {
		text := strings.ReplaceAll(networkText(n), from, to)
		if strings.HasPrefix(from, "{") {
			text = strings.Replace(text, `  "name": "testnet",`, "", 1)
		}
		got, err := ParseNetwork([]byte(text))
		if from == `"name": "testnet",` {
			refusal(t, "without a name", err, "name: is missing")
		} else if err != nil || !reflect.DeepEqual(got, n) {
			t.Errorf("%q as %q: %v", from, to, err)
		}
	}
}

// One change of the file's text each, and what its error says. WHOLE is the whole text, ID0 and ID1 are the
// authorities' IDs.
var networkFileErrors = []struct{ from, to, want string }{
	{"WHOLE", "", "not JSON"},
	{"WHOLE", "null", "not a JSON object"},
	{"WHOLE", "[]", "not a JSON object"},
	{"WHOLE", "{", "not JSON"},
	{"WHOLE", "{}", "version: is missing"},
	{"WHOLE", "WHOLE{}", "more behind the end"},
	{"WHOLE", "WHOLEx", "more behind the end"},
	{`"version": 1`, `"version": 2`, "version: 2 is not known"},
	{`"version": 1`, `"version": 2, "more": 1`, "version: 2 is not known"},
	{`"version": 1`, `"version": "1"`, "version: a JSON string cannot stand here"},
	{`"version": 1`, `"version": 1.5`, "version: a JSON number 1.5"},
	{`"version": 1`, `"version": null`, "version: is null"},
	{`"version": 1`, `"version": 1, "version": 1`, "version: stands there twice"},
	{`"version": 1`, `"Version": 1`, "version: is missing"},
	{`"version": 1`, `"version": 1, "comment": "x"`, "comment: unknown key"},
	{`"version": 1`, `"version": 1, "VERSION": 1`, "VERSION: unknown key"},
	{`"testnet"`, `""`, "name: 0 bytes"},
	{`"testnet"`, `"test net"`, "name: \"test net\" has other characters"},
	{`"testnet"`, `"` + strings.Repeat("n", 65) + `"`, "name: 65 bytes"},
	{`"authorities": [`, `"authorities": [null,`, "authorities[0]: not a JSON object"},
	{`"authorities": [`, `"authorities": [{},`, "authorities[0].nickname: is missing"},
	{`"authorities": [`, `"authorities": {}, "x": [`, "authorities: a JSON object cannot stand here"},
	{`"authorities": [`, `"authorities": [], "x": [`, "x: unknown key"},
	{`"authority2"`, `"authority1"`, `authorities[1].nickname: "authority1" is taken`},
	{`"authority2"`, `"an authority"`, "authorities[1].nickname: "},
	{`"authority2"`, `7`, "authorities[1].nickname: a JSON number"},
	{"ID1", "ID0", "authorities[1].id: ID0 is another"},
	{"ID1", strings.Repeat("AB", 32), "authorities[1].id: "},
	{"ID1", strings.Repeat("a", 63), "authorities[1].id: "},
	{"ID1", strings.Repeat("0", 64), "authorities[1].id: the zero ID"},
	{"ID1", "01" + strings.Repeat("0", 62), "authorities[1].id: an ID of small order"},
	{`"127.0.0.1:7002"`, `"127.0.0.1:7001"`, "authorities[1].addresses: 127.0.0.1:7001 is another"},
	{`"127.0.0.1:7002"`, `"127.0.0.1:7002", "127.0.0.1:7002"`, "authorities[1].addresses: one address twice"},
	{`"127.0.0.1:7002"`, ``, "authorities[1].addresses: 0 in place"},
	{`"127.0.0.1:7002"`, `null`, "authorities[1].addresses: no address"},
	{`"127.0.0.1:7002"`, `"localhost:7002"`, "authorities[1].addresses: "},
	{`"127.0.0.1:7002"`, `"127.0.0.1"`, "authorities[1].addresses: "},
	{`"127.0.0.1:7002"`, `"127.0.0.1:0"`, "authorities[1].addresses: port 0"},
	{`"127.0.0.1:7002"`, `"0.0.0.0:7002"`, "authorities[1].addresses: the unspecified"},
	{`"127.0.0.1:7002"`, `"[::ffff:127.0.0.1]:7002"`, "authorities[1].addresses: an IPv4-mapped"},
	{`"127.0.0.1:7002"`, `"[fe80::1%lo]:7002"`, "authorities[1].addresses: an address with a zone"},
	{`"parameters": {`, `"parameters": null, "x": {`, "parameters: is null"},
	{`"parameters": {`, `"parameters": 5, "x": {`, "x: unknown key"},
	{`"parameters": {`, `"parameters": {"hops": 3,`, "parameters.hops: unknown key"},
	{`"5s"`, `"5"`, `parameters.round: "5" is not a duration`},
	{`"5s"`, `5`, "parameters.round: a JSON number"},
	{`"5s"`, `"0s"`, "parameters.round: 0s is not"},
	{`"5s"`, `"-5s"`, "parameters.round: -5s is not"},
	{`"5s"`, `"5s1us"`, "parameters.round: 5.000001s is not a whole"},
	{`"5s"`, `"169h"`, "parameters.round: 169h0m0s is not"},
	{`"round": "5s",`, ``, "parameters.round: is missing"},
	{`"2026-09-21T14:13:20Z"`, `"today"`, `parameters.start: "today" is not a time`},
	{`"2026-09-21T14:13:20Z"`, `""`, `parameters.start: "" is not a time`},
	{`"2026-09-21T14:13:20Z"`, `"2026-09-21T14:13:20.0001Z"`, "parameters.start: "},
	{`"2026-09-21T14:13:20Z"`, `"1970-01-01T00:00:00Z"`, "parameters.start: "},
	{`"2026-09-21T14:13:20Z"`, `"1969-01-01T00:00:00Z"`, "parameters.start: time -"},
	{`"start": "2026-09-21T14:13:20Z",`, ``, "parameters.start: is missing; initial rounds"},
	{`"initial_round": "250ms",`, ``, "parameters.initial_round: 0s is not"},
	{`"250ms"`, `"6s"`, "parameters.initial_round: 6s is not"},
	{`"250ms"`, `"9ms"`, "parameters.initial_round: 9ms is not"},
	{`"initial_rounds": 8,`, ``, "parameters.initial_round: means nothing"},
	{`"initial_rounds": 8`, `"initial_rounds": 1001`, "parameters.initial_rounds: 1001 outside"},
	{`"initial_rounds": 8`, `"initial_rounds": -1`, "parameters.initial_rounds: -1 outside"},
	{`"per_address": 0`, `"per_address": 0, "valid": "4s"`, "parameters.valid: 4s is not"},
	{`"per_address": 0`, `"per_address": -1`, "parameters.per_address: -1 outside"},
	{`"min_relays": 5`, `"min_relays": 20001`, "parameters.min_relays: 20001 outside"},
	{`"subnet_rule": false`, `"subnet_rule": "off"`, "parameters.subnet_rule: a JSON string"},
	{`"24h0m0s"`, `"8761h"`, "parameters.onion_key_lifetime: 8761h0m0s is not"},
}

func TestNetworkFileErrors(t *testing.T) {
	n, _ := testNetwork(2)
	text := networkText(n)
	fill := strings.NewReplacer("WHOLE", text, "ID0", n.Authorities[0].ID.String(), "ID1", n.Authorities[1].ID.String())
	for _, c := range networkFileErrors {
		bad := strings.Replace(text, fill.Replace(c.from), fill.Replace(c.to), 1)
		if bad == text {
			t.Fatalf("%q does not stand in the file", c.from)
		}
		_, err := ParseNetwork([]byte(bad))
		refusal(t, fmt.Sprintf("%.40q as %.40q", c.from, c.to), err, fill.Replace(c.want))
	}
	for i := range len(text) - 2 {
		if _, err := ParseNetwork([]byte(text[:i])); err == nil {
			t.Fatalf("the first %d bytes were accepted", i)
		}
	}
	many, _ := testNetwork(MaxAuthorities + 1)
	_, err := ParseNetwork(many.Marshal())
	refusal(t, "33 authorities", err, "authorities: 33 in place")
}

func TestPrivateNetwork(t *testing.T) {
	for addrs, want := range map[string]bool{
		"127.0.0.1:1": true, "10.0.0.1:1 [::1]:1": true, "[fd00::1]:1 192.168.1.1:1": true,
		"93.184.216.34:1": false, "10.0.0.1:1 93.184.216.34:1": false, "100.64.0.1:1": false, "[2606:2800::1]:1": false,
	} {
		var n Network
		for at := range strings.FieldsSeq(addrs) {
			n.Authorities = append(n.Authorities, Authority{Addresses: []netip.AddrPort{netip.MustParseAddrPort(at)}})
		}
		if n.IsPrivate() != want {
			t.Errorf("%s: private: %v", addrs, !want)
		}
	}
}

func TestDigestText(t *testing.T) {
	d := DigestOf(nil)
	text, _ := d.MarshalText()
	if want := "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"; string(text) != want {
		t.Errorf("got %s, want %s", text, want)
	}
	var back Digest
	if err := back.UnmarshalText(text); err != nil || back != d {
		t.Errorf("%v, %v", back, err)
	}
	for _, bad := range [][]byte{nil, text[1:], append(text, '0'), bytes.ToUpper(text), append([]byte("zz"), text[2:]...)} {
		if err := back.UnmarshalText(bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
	if d.IsZero() || !(Digest{}).IsZero() || d.Compare(Digest{}) != 1 {
		t.Error("zero or order")
	}
}

func TestFlagNames(t *testing.T) {
	for f, want := range map[Flags]string{
		0: "", Running: "Running", Running | Exit | BadExit: "Running,Exit,BadExit",
		knownFlags: "Running,Exit,Fast,Stable,Guard,BadExit", Guard | 64: "Guard,0x40",
	} {
		if f.String() != want {
			t.Errorf("%d: %q, want %q", f, f, want)
		}
	}
	if f := Running | Exit; !f.Has(Running) || !f.Has(Running|Exit) || f.Has(Running|Fast) {
		t.Error("Has")
	}
}
