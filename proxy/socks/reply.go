package socks

import (
	"errors"
	"net/netip"

	"torproxy/wire"
)

// The replies of RFC 1928 section 6. 7 (command not supported) comes from go-socks5, and so does 8 for an
// address type that does not exist.
const (
	replySucceeded       = 0
	replyFailure         = 1
	replyNotAllowed      = 2
	replyNetUnreachable  = 3
	replyHostUnreachable = 4
	replyRefused         = 5
	replyAddressType     = 8
)

// The address types of RFC 1928 section 5.
const (
	typeIPv4 = 1
	typeName = 3
	typeIPv6 = 4
)

// unspecified is the address in a reply that has none.
var unspecified = netip.IPv4Unspecified()

// addressReply is a whole reply: 05 | code | 00 | type | address | port 2.
func addressReply(code byte, addr netip.Addr) []byte {
	b := []byte{5, code, 0, typeIPv4}
	if addr.Is6() {
		b[3] = typeIPv6
	}
	b = append(b, addr.AsSlice()...)
	return append(b, 0, 0)
}

// nameReply is a whole reply with a name of at most 255 bytes in it.
func nameReply(name string) []byte {
	b := append([]byte{5, replySucceeded, 0, typeName, byte(len(name))}, name...)
	return append(b, 0, 0)
}

// replyCode maps an error of Config's functions, or one of the request itself, to the reply: the one place
// where the reason of an END becomes a SOCKS code. The front door's table of HTTP statuses has the same rows.
func replyCode(err error) byte {
	switch {
	case errors.Is(err, errNotAddress):
		return replyAddressType
	case errors.Is(err, errNoAnswer):
		return replyHostUnreachable
	}
	end, ok := errors.AsType[*wire.EndError](err)
	if !ok || end.Reason == wire.ReasonTimeout && !end.Remote { // which tells nothing of the destination
		return replyFailure
	}
	switch end.Reason {
	case wire.ReasonRefused:
		return replyRefused
	case wire.ReasonDNS, wire.ReasonHostUnreachable, wire.ReasonTimeout:
		return replyHostUnreachable
	case wire.ReasonNetUnreachable:
		return replyNetUnreachable
	case wire.ReasonPolicy:
		return replyNotAllowed
	default:
		return replyFailure
	}
}
