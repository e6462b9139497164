package onion

import (
	"fmt"
	"io"
)

// redactedText is what stands for a secret wherever it is printed.
const redactedText = "(redacted)"

// redacted is embedded in every type that holds secrets: fmt with any verb, log/slog with any handler, and
// encoding/json print "(redacted)" in their place. fmt cannot call methods on another struct's unexported
// field, so hold such a type by pointer there.
type redacted struct{}

// Format implements fmt.Formatter for every verb.
func (redacted) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, redactedText) }

// String implements fmt.Stringer.
func (redacted) String() string { return redactedText }

// GoString implements fmt.GoStringer.
func (redacted) GoString() string { return redactedText }

// MarshalText implements encoding.TextMarshaler, which log/slog's handlers and encoding/json ask for.
func (redacted) MarshalText() ([]byte, error) { return []byte(redactedText), nil }
