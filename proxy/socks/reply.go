package socks

import (
	"errors"

	"torproxy/wire"
)

// The replies of RFC 1928 section 6 that a failed CONNECT can get. 7 (command not supported) and 8
// (address type not supported) come from go-socks5.
const (
	replyFailure         = 1
	replyNotAllowed      = 2
	replyNetUnreachable  = 3
	replyHostUnreachable = 4
	replyRefused         = 5
)

// replyCode maps an error of Config.Dial to the reply: the one place where the reason of an END becomes
// a SOCKS code. The front door's table of HTTP statuses has the same rows.
func replyCode(err error) byte {
	end, ok := errors.AsType[*wire.EndError](err)
	if !ok {
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
