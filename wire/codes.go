package wire

import "fmt"

// Command is the first byte of a message (section 4.1).
type Command uint8

// The commands, with the side that may send them.
const (
	CmdNone      Command = 0  // no message: the rest of the payload is zero
	CmdBegin     Command = 1  // client: open a stream; body kind 1 | target
	CmdConnected Command = 2  // exit: the destination answered
	CmdData      Command = 3  // both: bytes, at least one
	CmdFin       Command = 4  // both: no more DATA from this side
	CmdEnd       Command = 5  // both: the stream is over; body reason 1
	CmdWindow    Command = 6  // both: credit granted; body bytes 4
	cmdResolve   Command = 7  // given up for KindResolve; the number stays a violation
	cmdResolved  Command = 8  // the same
	CmdPush      Command = 9  // exit: open a stream for what a reply led to; body parent 2
	CmdDrop      Command = 10 // client: padding on stream 0, any body
)

var commandNames = [...]string{"NONE", "BEGIN", "CONNECTED", "DATA", "FIN", "END", "WINDOW", "command 7", "command 8", "PUSH", "DROP"}

func (c Command) String() string {
	if int(c) < len(commandNames) {
		return commandNames[c]
	}
	return fmt.Sprintf("command %d", uint8(c))
}

// Kind says what a BEGIN asks for (section 4.1).
type Kind uint8

// The kinds of stream.
const (
	KindTCP       Kind = 1 // a byte pipe to HOST:PORT
	KindHTTP      Kind = 2 // an HTTP request that the exit makes to HOST:PORT
	KindDirectory Kind = 3 // reserved: a document request to the exit's mirror
	KindEcho      Kind = 4 // for authorities: the last hop returns what it gets
	KindResolve   Kind = 5 // the addresses of a name, or the names of an address: Answers
)

var kindNames = [...]string{KindTCP: "tcp", KindHTTP: "http", KindDirectory: "directory", KindEcho: "echo", KindResolve: "resolve"}

func (k Kind) String() string {
	if int(k) < len(kindNames) && kindNames[k] != "" {
		return kindNames[k]
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// EchoTarget is the target of a BEGIN of KindEcho.
const EchoTarget = "echo:"

// The control headers of KindHTTP, between the front door and the exit: neither passes them on to what is
// behind it, nor takes them from there (section 4.1).
const (
	HeaderPrefetch = "Torproxy-Prefetch" // request; its value is PrefetchPage
	HeaderOpen     = "Torproxy-Open"     // response: a URL that the reply asks the user to open
	PrefetchPage   = "page"              // the reply will be shown as a page: its links may be opened
	MaxOpen        = 8                   // HeaderOpen in one response
)

// Reason is the one byte of an END: why a stream is over (section 4.1).
type Reason uint8

// The reasons. Zero and unknown values are a violation.
const (
	ReasonDone            Reason = 1  // both sides finished, or the application closed
	ReasonRefused         Reason = 2  // the destination refused the connection
	ReasonHostUnreachable Reason = 3  // no route to the host
	ReasonNetUnreachable  Reason = 4  // no route to its network
	ReasonTimeout         Reason = 5  // the destination did not answer in time
	ReasonDNS             Reason = 6  // the name does not resolve
	ReasonPolicy          Reason = 7  // the exit's policy does not allow it
	ReasonReset           Reason = 8  // the destination or the application reset the connection
	ReasonResourceLimit   Reason = 9  // too many streams, or too many bytes unread
	ReasonUnsupported     Reason = 10 // this kind of stream is not served here
	ReasonInternal        Reason = 11 // anything else at the exit
	ReasonShutdown        Reason = 12 // the exit is shutting down
)

var reasonNames = [...]string{
	ReasonDone:            "done",
	ReasonRefused:         "refused by the destination",
	ReasonHostUnreachable: "host unreachable",
	ReasonNetUnreachable:  "network unreachable",
	ReasonTimeout:         "time-out",
	ReasonDNS:             "DNS failure",
	ReasonPolicy:          "exit policy",
	ReasonReset:           "connection reset",
	ReasonResourceLimit:   "resource limit",
	ReasonUnsupported:     "unsupported",
	ReasonInternal:        "internal error at the exit",
	ReasonShutdown:        "the exit is shutting down",
}

// Valid reports whether the reason is one of the list.
func (r Reason) Valid() bool { return r >= ReasonDone && int(r) < len(reasonNames) }

func (r Reason) String() string {
	if r.Valid() {
		return reasonNames[r]
	}
	return fmt.Sprintf("reason %d", uint8(r))
}

// EndError is how a stream that did not end well is reported to its user: the reason that came with END,
// or that this side gave.
type EndError struct {
	Reason Reason
	Remote bool // the other end said so
}

func (e *EndError) Error() string {
	if e.Remote {
		return "stream ended by the exit: " + e.Reason.String()
	}
	return "stream ended: " + e.Reason.String()
}

// Timeout reports whether the reason is a time-out, as net.Error wants it.
func (e *EndError) Timeout() bool { return e.Reason == ReasonTimeout }

// Temporary exists for net.Error; it is always false.
func (e *EndError) Temporary() bool { return false }

// Status is the first byte of a slot of CREATED: what one hop says of building the circuit (section 3.3).
type Status uint8

// The statuses. Zero and unknown values are a violation by the hop that said it.
const (
	StatusForwarded       Status = 1 // passed on; the rest of CREATED is the next hop's answer
	StatusReady           Status = 2 // this hop is the last of the circuit
	StatusUnknownNext     Status = 3 // the next relay is not in this relay's consensus
	StatusNextUnreachable Status = 4 // no link to the next relay could be made
	StatusNextTimeout     Status = 5 // the next relay did not answer in time
	StatusNextReset       Status = 6 // the next relay reset the circuit, or answered nonsense
	StatusOverloaded      Status = 7 // peeled, but there is no room for it here
	StatusRefused         Status = 8 // bad role, flags, reserved bytes, or next hop
)

var statusNames = [...]string{"", "forwarded", "ready", "unknown next relay", "next relay unreachable",
	"next relay timed out", "next relay reset the circuit", "overloaded", "refused"}

// Valid reports whether the status is one of the list.
func (s Status) Valid() bool { return s >= StatusForwarded && s <= StatusRefused }

func (s Status) String() string {
	if s.Valid() {
		return statusNames[s]
	}
	return fmt.Sprintf("status %d", uint8(s))
}

// ResetCode is the QUIC application error code of a reset circuit stream or a closed link (section 2).
// The list is closed, an unknown code reads as ResetDestroyed, and a relay never passes one on.
type ResetCode uint64

// The reset codes.
const (
	ResetDestroyed  ResetCode = 0 // the circuit is gone, whatever the cause
	ResetCreate     ResetCode = 1 // CREATE was not accepted: one code for every cause
	ResetOverloaded ResetCode = 2 // CREATE was not served: no room
	ResetViolation  ResetCode = 3 // the peer broke the protocol
)

// Known maps a code from the network to the closed list.
func (c ResetCode) Known() ResetCode {
	if c > ResetViolation {
		return ResetDestroyed
	}
	return c
}

func (c ResetCode) String() string {
	switch c.Known() {
	case ResetCreate:
		return "create not accepted"
	case ResetOverloaded:
		return "overloaded"
	case ResetViolation:
		return "protocol violation"
	default:
		return "destroyed"
	}
}
