//go:build !windows

package main

import (
	"os/signal"
	"syscall"
)

// leaveTerminalQuietly makes a read of the terminal fail when the program was put into the background, where
// it would otherwise be stopped as a whole, and the proxy with it.
func leaveTerminalQuietly() { signal.Ignore(syscall.SIGTTIN) }
