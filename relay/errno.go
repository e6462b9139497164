//go:build !windows

package relay

import "syscall"

// The system's names for why a connection could not be made.
var (
	refusedErrors = []error{syscall.ECONNREFUSED}
	hostErrors    = []error{syscall.EHOSTUNREACH, syscall.EHOSTDOWN}
	networkErrors = []error{syscall.ENETUNREACH, syscall.ENETDOWN, syscall.EADDRNOTAVAIL, syscall.EAFNOSUPPORT}
)
