package dirauth

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"torproxy/wire"
	"torproxy/wire/directory"
	"torproxy/wire/netdoc"
)

// relayID is the ID of relay i of describe.
func relayID(i int) wire.ID { return wire.PublicID(key("relay", i)) }

// write makes a file of lines.
func write(t *testing.T, path string, lines ...string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestLists(t *testing.T) {
	path := filepath.Join(t.TempDir(), "list")
	one, two := relayID(1).String(), relayID(2).String()
	for _, tt := range []struct {
		name  string
		lines []string
		allow string // what the error says; "": none
		deny  string
	}{
		{"empty", nil, "", ""},
		{"IDs and comments", []string{"# these", "", one, "  " + two + "\t# the second", "\r"}, "", ""},
		{"a reason", []string{one + " spoils circuits"}, "line 1: \"spoils circuits\" behind the relay's ID", ""},
		{"a bad exit", []string{one, "badexit " + two + " reads mail"}, "line 2: ", ""},
		{"a bad exit without an ID", []string{"badexit "}, "line 1: ", "line 1: "},
		{"a short ID", []string{one, "", one[:63]}, "line 3: ", "line 3: "},
		{"capitals", []string{strings.ToUpper(one)}, "lower case", "lower case"},
		{"the zero ID", []string{wire.ID{}.String()}, "names no relay", "names no relay"},
		{"a word", []string{"everybody"}, "line 1: ", "line 1: "},
		{"a reason that is no text", []string{one + " \x1b[2J"}, "line 1: ", "printable"},
		{"a long reason", []string{one + " " + strings.Repeat("a", 300)}, "line 1: ", "longer than"},
		{"a large file", []string{strings.Repeat("#", maxListBytes+1)}, "larger than", "larger than"},
	} {
		write(t, path, tt.lines...)
		_, err := readAllowed(path)
		checkSays(t, tt.name+", of the allowed", err, tt.allow)
		_, _, err = readRejections(path)
		checkSays(t, tt.name+", of the rejected", err, tt.deny)
	}
	if _, err := readAllowed(path + "x"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no list of the allowed: %v", err)
	}
	if out, bad, err := readRejections(path + "x"); err != nil || len(out)+len(bad) != 0 {
		t.Errorf("no list of the rejected: %v", err)
	}
}

func checkSays(t *testing.T, what string, err error, want string) {
	t.Helper()
	if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
		t.Errorf("%s: %v, want %q", what, err, want)
	}
}

func FuzzParseRejection(f *testing.F) {
	id := relayID(1).String()
	for _, seed := range []string{"", "# a", id, id + " why", "badexit " + id, "badexit " + id + " #why", " \t" + id + "\t\tx  y"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, line string) {
		r, err := parseRejection(line)
		if err != nil || r == nil {
			return
		}
		again, err := parseRejection(r.line())
		if err != nil || again == nil || *again != *r {
			t.Errorf("%q reads as %+v, which is written as %q and reads as %+v, %v", line, *r, r.line(), again, err)
		}
	})
}

// Reject keeps what it does not concern, and replaces what it does.
func TestReject(t *testing.T) {
	path := filepath.Join(t.TempDir(), "rejected")
	one, two := relayID(1), relayID(2)
	reject := func(r Rejection, want ...string) {
		t.Helper()
		if err := Reject(path, r); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		if text := strings.Join(want, "\n") + "\n"; err != nil || string(got) != text {
			t.Errorf("the file is %q, want %q (%v)", got, text, err)
		}
	}
	reject(Rejection{ID: one}, one.String())
	if info, err := os.Stat(path); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o644 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	write(t, path, "# bad ones", "", one.String()+"  # mine", "badexit "+two.String())
	reject(Rejection{ID: two, Reason: "drops cells"}, "# bad ones", "", one.String()+"  # mine", two.String()+" drops cells")
	reject(Rejection{ID: one, BadExit: true, Reason: "x"}, "# bad ones", "", two.String()+" drops cells", "badexit "+one.String()+" x")

	for _, r := range []Rejection{{}, {ID: one, Reason: "two\nlines"}, {ID: one, Reason: strings.Repeat("x", 500)}} {
		if err := Reject(path, r); err == nil {
			t.Errorf("%+v was written", r)
		}
	}
	write(t, path, "garbage")
	checkSays(t, "into a file with an error in it", Reject(path, Rejection{ID: one}), "line 1")
	if got, _ := os.ReadFile(path); string(got) != "garbage" {
		t.Errorf("the file is now %q", got)
	}
	if left, _ := filepath.Glob(path + ".*"); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

// A list says who may register, and a change of it takes effect with Reload; with an error in it the last
// good one does.
func TestGate(t *testing.T) {
	dir := t.TempDir()
	allow, deny := filepath.Join(dir, "allow"), filepath.Join(dir, "deny")
	write(t, allow, relayID(1).String(), relayID(2).String())
	g, err := openGate(allow, deny)
	if err != nil {
		t.Fatal(err)
	}
	r := newRoster(newTown(4).Network, NewMemoryStore(), g, slog.New(slog.DiscardHandler))
	v := &voter{roster: r, log: r.log}
	admit := func(i int, want directory.Result, reason string) {
		t.Helper()
		if got := r.admit(describe(t, i), validAfter); got.Result != want || !strings.Contains(got.Reason, reason) {
			t.Errorf("relay %d: %v, want %v with %q", i, got, want, reason)
		}
	}
	admit(1, directory.Added, "")
	admit(2, directory.Added, "")
	admit(3, directory.Refused, "not on the list")

	write(t, allow, relayID(1).String(), relayID(2).String(), relayID(3).String())
	write(t, deny, relayID(2).String()+" spoils circuits", "badexit "+relayID(1).String())
	if err := v.reload(); err != nil {
		t.Fatal(err)
	}
	admit(1, directory.Known, "")
	admit(2, directory.Refused, "operator: spoils circuits")
	admit(3, directory.Added, "")
	if _, known := r.running(); known != 2 {
		t.Errorf("%d relays are known after one was rejected, want 2", known)
	}
	r.tested(describe(t, 1), false, validAfter)
	r.tested(describe(t, 3), true, validAfter)
	for _, e := range r.entries(validAfter) {
		if e.Flags.Has(netdoc.BadExit) != (e.ID == relayID(1)) {
			t.Errorf("relay %s has the flags %v", e.ID.Short(), e.Flags)
		}
	}

	write(t, deny, "garbage")
	checkSays(t, "a list with an error in it", v.reload(), "deny: line 1")
	admit(2, directory.Refused, "spoils circuits")
	os.Remove(allow)
	checkSays(t, "no list of the allowed", v.reload(), "allow")
	admit(4, directory.Refused, "not on the list")
	write(t, allow, relayID(2).String())
	os.Remove(deny)
	if err := v.reload(); err != nil {
		t.Fatal(err)
	}
	admit(2, directory.Added, "")
	admit(1, directory.Refused, "not on the list")

	write(t, deny, "garbage")
	if _, err := openGate(allow, deny); err == nil {
		t.Error("began with a list that cannot be read")
	}
}

// A relay that a quorum's operators reject is out of the next consensus, without a restart; one that a
// single operator rejects stays.
func TestRejectedRelayDropsOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newParliament(t, 4, nil)
		dir := t.TempDir()
		lists := make([]string, 4)
		for i := range 4 {
			lists[i] = filepath.Join(dir, string('a'+rune(i)))
			g, err := openGate("", lists[i])
			if err != nil {
				t.Fatal(err)
			}
			p.voters[i].roster.gate = g
		}
		p.relays(upTo(4), 0, 5)
		p.start(0, 1, 2, 3)
		defer p.stop(0, 1, 2, 3)
		round := p.Params.NextRound(p.Params.NextRound(time.Now()))
		listed := func(i int) bool {
			await(round)
			_, in := p.agreed(round, 0, 1, 2, 3).Relay(relayID(i))
			round = p.Params.NextRound(round)
			return in
		}
		reject := func(authorities, relay int) {
			for i := range authorities {
				if err := Reject(lists[i], Rejection{ID: relayID(relay)}); err != nil {
					t.Fatal(err)
				}
			}
		}
		if !listed(1) {
			t.Error("out before it was rejected")
		}
		reject(1, 1)
		if !listed(1) {
			t.Error("out by the word of one")
		}
		reject(3, 1)
		if listed(1) {
			t.Error("in although three of four rejected it")
		}
	})
}
