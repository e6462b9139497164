package onion

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"torproxy/wire"
)

// TestRedacted: nothing that holds secrets prints them, by value or by pointer, with any verb, in a slice or a
// struct, through log/slog or encoding/json. (%w of what is no error is a mistake that go vet reports; fmt asks no
// method then.)
func TestRedacted(t *testing.T) {
	net := newTestNet(t, 1)
	packet, h := net.create(t)
	keys := testHopKeys(1)
	p := net.carryOut(t, packet, 1)[0]
	secrets := map[string]any{
		"HopKeys":     keys[0],
		"*HopKeys":    &keys[0],
		"*PrivateKey": net.keys[0],
		"*Keyring":    net.rings[0],
		"*Handshake":  h,
		"*Peeled":     p,
		"*Layer":      NewLayer(&keys[0].Forward, wire.CellSize),
		"*Client":     NewClient(keys, wire.CellSize),
	}
	for name, secret := range secrets {
		for _, verb := range "vdsqxXbcoOUeEfFgGtZ" {
			for _, flags := range []string{"", "+", "#", "-20", "08", " "} {
				format := "%" + flags + string(verb)
				if got := fmt.Sprintf(format, secret); got != redactedText {
					t.Errorf("%s with %s: %.60s", name, format, got)
				}
			}
		}
		for _, text := range []string{
			fmt.Sprint(secret), fmt.Sprintln(secret), fmt.Errorf("%w %v", wire.ErrViolation, secret).Error(),
			fmt.Sprintf("%+v", []any{secret}), fmt.Sprintf("%v", struct{ S any }{secret}),
			logged(func(b *bytes.Buffer) slog.Handler { return slog.NewTextHandler(b, nil) }, secret),
			logged(func(b *bytes.Buffer) slog.Handler { return slog.NewJSONHandler(b, nil) }, secret),
			marshalled(t, secret),
		} {
			if !strings.Contains(text, redactedText) || len(text) > 200 {
				t.Errorf("%s: %.80s", name, text)
			}
		}
	}
	for _, text := range []string{fmt.Sprintf("%v", keys), fmt.Sprintf("%x", keys), marshalled(t, keys)} {
		if strings.Trim(text, `[]"`) != redactedText {
			t.Errorf("[]HopKeys: %.80s", text)
		}
	}
	if keys[0].GoString() != redactedText || keys[0].String() != redactedText {
		t.Error("String or GoString tells")
	}
}

func logged(handler func(*bytes.Buffer) slog.Handler, secret any) string {
	var b bytes.Buffer
	slog.New(handler(&b)).Info("message", "secret", secret)
	return b.String()
}

func marshalled(t *testing.T, secret any) string {
	t.Helper()
	b, err := json.Marshal(secret)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
