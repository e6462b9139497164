package relay

import "golang.org/x/sys/windows"

// The system's names for why a connection could not be made.
var (
	refusedErrors = []error{windows.WSAECONNREFUSED}
	hostErrors    = []error{windows.WSAEHOSTUNREACH, windows.WSAEHOSTDOWN}
	networkErrors = []error{windows.WSAENETUNREACH, windows.WSAENETDOWN, windows.WSAEADDRNOTAVAIL, windows.WSAEAFNOSUPPORT}
)
