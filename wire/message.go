package wire

import (
	"encoding/binary"

	"golang.org/x/crypto/cryptobyte"
)

// Message is one message of a cell's payload. Body aliases the payload it was parsed from.
type Message struct {
	Command Command
	Stream  uint16
	Body    []byte
}

// PutHeader writes a message's header to b[0:HeaderSize]; the body of n bytes follows it.
// n is at most MaxBody.
func PutHeader(b []byte, cmd Command, stream uint16, n int) {
	_ = b[HeaderSize-1]
	b[0] = byte(cmd)
	binary.BigEndian.PutUint16(b[1:], stream)
	binary.BigEndian.PutUint16(b[3:], uint16(n))
}

// AppendMessage appends a whole message to a payload under construction.
func AppendMessage(b []byte, cmd Command, stream uint16, body []byte) []byte {
	b = append(b, byte(cmd), byte(stream>>8), byte(stream), byte(len(body)>>8), byte(len(body)))
	return append(b, body...)
}

// NextMessage reads the first message of payload and returns what follows it. At the end (command 0, or
// no bytes left) it returns a message with CmdNone and a nil rest; bytes behind command 0 that are not
// zero, a message cut short, and an unknown command are violations.
func NextMessage(payload []byte) (m Message, rest []byte, err error) {
	if len(payload) == 0 {
		return Message{}, nil, nil
	}
	if payload[0] == byte(CmdNone) {
		if !allZero(payload) {
			return Message{}, nil, Violation("bytes behind the last message of a cell")
		}
		return Message{}, nil, nil
	}
	s := cryptobyte.String(payload)
	var body cryptobyte.String
	if !s.ReadUint8((*uint8)(&m.Command)) || !s.ReadUint16(&m.Stream) || !s.ReadUint16LengthPrefixed(&body) {
		return Message{}, nil, Violation("message cut short by the end of its cell")
	}
	if m.Command > CmdDrop || m.Command == cmdResolve || m.Command == cmdResolved {
		return Message{}, nil, Violation("unknown command %d", uint8(m.Command))
	}
	m.Body = body
	return m, s, nil
}

func allZero(b []byte) bool {
	for len(b) >= 8 {
		if binary.NativeEndian.Uint64(b) != 0 {
			return false
		}
		b = b[8:]
	}
	for _, x := range b {
		if x != 0 {
			return false
		}
	}
	return true
}

// AppendBegin appends a BEGIN's body: the kind, then its target, HOST:PORT for most kinds.
func AppendBegin(b []byte, kind Kind, target string) []byte {
	return append(append(b, byte(kind)), target...)
}

// MaxTarget is the longest target of a BEGIN: a name of 255 bytes, a colon, five digits; brackets
// around an IPv6 address fit in it too.
const MaxTarget = 255 + 1 + 5

// ParseBegin reads a BEGIN's body. Only the form is checked here: the exit judges kind and target, so
// that a bad one ends the stream and not the circuit.
func ParseBegin(body []byte) (kind Kind, target string, err error) {
	if len(body) < 2 || len(body) > 1+MaxTarget {
		return 0, "", Violation("BEGIN of %d bytes", len(body))
	}
	for _, c := range body[1:] {
		if c <= ' ' || c >= 0x7f {
			return 0, "", Violation("BEGIN with a byte outside printable ASCII")
		}
	}
	return Kind(body[0]), string(body[1:]), nil
}

// ParsePush reads a PUSH's body: the stream whose reply led to the new one. Whether the client has begun
// such a stream is for the receiver to know.
func ParsePush(body []byte) (parent uint16, err error) {
	if len(body) != 2 {
		return 0, Violation("PUSH of %d bytes", len(body))
	}
	return binary.BigEndian.Uint16(body), nil
}

// ParseEnd reads an END's body: one reason byte.
func ParseEnd(body []byte) (Reason, error) {
	if len(body) != 1 || !Reason(body[0]).Valid() {
		return 0, Violation("END with a bad reason")
	}
	return Reason(body[0]), nil
}

// ParseWindow reads a WINDOW's body: the credit granted in bytes, 1 to MaxCredit.
func ParseWindow(body []byte) (int, error) {
	if len(body) != 4 {
		return 0, Violation("WINDOW of %d bytes", len(body))
	}
	n := binary.BigEndian.Uint32(body)
	if n == 0 || n > MaxCredit {
		return 0, Violation("WINDOW of %d bytes of credit", n)
	}
	return int(n), nil
}
