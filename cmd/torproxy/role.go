package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"torproxy/cmd/torproxy/internal/state"
)

// What a relay and an authority have in common: state, a UDP socket, signals, a word to the supervisor.

// addOutputFlags adds the flags about what a role says.
func addOutputFlags(cmd *cobra.Command, out *output) {
	f := cmd.Flags()
	f.CountVarP(&out.verbose, "verbose", "v", "log every step; this has addresses in it``")
	f.BoolVarP(&out.quiet, "quiet", "q", false, "print nothing but errors")
}

// openState opens a state directory; its errors are failures. flag is the one that names it.
func openState(open func(string) (*state.Dir, error), flag, path string) (*state.Dir, error) {
	dir, err := open(path)
	if err == nil {
		return dir, nil
	}
	f := &failure{code: codeState, err: err, what: fmt.Sprintf("cannot use the directory %s (--%s): %v", path, flag, err)}
	switch {
	case errors.Is(err, state.ErrLocked):
		f.what = fmt.Sprintf("the directory %s (--%s) is in use", path, flag)
		f.cause, f.advice = "another torproxy runs with it", "stop that one, or give this one a directory of its own"
	case errors.Is(err, state.ErrExposed):
		f.cause, f.advice = "it holds secret keys, so nobody but its owner may have access", "chmod 700 "+path
	case errors.Is(err, fs.ErrNotExist) && flag == "dir":
		f.cause, f.advice = "its name is misspelt, or the network was not made yet", "torproxy network new makes it"
	case errors.Is(err, fs.ErrNotExist):
		f.cause = "the directory above it does not exist"
	case errors.Is(err, fs.ErrPermission):
		f.cause = "it is another user's"
	}
	return nil, f
}

// explainIdentity is what is told of a key that can't be used.
func explainIdentity(flag, path string, err error) *failure {
	f := &failure{code: codeState, err: err, what: fmt.Sprintf("cannot use the identity key: %v", err)}
	switch {
	case errors.Is(err, state.ErrPassphrase):
		f.what, f.advice = "the identity key was not opened", "try again; without the passphrase the key is lost"
		f.cause = err.Error()
	case errors.Is(err, state.ErrSealed):
		f.advice = "start it on a terminal, or give --passphrase-file"
	case errors.Is(err, state.ErrExposed):
		f.cause, f.advice = "others may have read it", "chmod 600 it, and think about who could"
	case errors.Is(err, state.ErrNoIdentity):
		f.advice = fmt.Sprintf("look whether --%s %s is the right directory", flag, path)
	}
	return f
}

// listenUDP opens a role's socket; its errors are failures.
func listenUDP(addr netip.AddrPort) (*net.UDPConn, error) {
	network := "udp"
	if addr.Addr().Is4() {
		network = "udp4"
	}
	conn, err := net.ListenUDP(network, net.UDPAddrFromAddrPort(addr))
	if err == nil {
		return conn, nil
	}
	f := &failure{
		code: codeListen, err: err, what: fmt.Sprintf("cannot listen on UDP %v: %v", addr, systemError(err)),
		advice: "choose another address with --listen",
	}
	switch {
	case addressInUse(err):
		f.code, f.what = codeTaken, fmt.Sprintf("cannot listen on UDP %v: the port is taken", addr)
		f.cause = "another program listens there, perhaps another torproxy"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		f.cause = "this machine has no such address"
		f.advice = "behind a router, listen on the machine's own address and --advertise the router's"
	case errors.Is(err, fs.ErrPermission) && addr.Port() < 1024:
		f.cause = "ports below 1024 are the administrator's"
	}
	return nil, f
}

// boundTo is where a socket really listens.
func boundTo(conn *net.UDPConn) netip.AddrPort {
	a := conn.LocalAddr().(*net.UDPAddr).AddrPort()
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

// udpAddress is the value of flags that name a role's address.
type udpAddress struct {
	addr    netip.AddrPort
	noPort  bool // it may be left out
	without bool // it was left out
}

func (a *udpAddress) String() string {
	switch {
	case !a.addr.IsValid():
		return ""
	case a.without:
		return a.addr.Addr().String()
	}
	return a.addr.String()
}

// Type implements pflag.Value.
func (a *udpAddress) Type() string { return "ADDRESS" }

// Set implements pflag.Value. There are no names: a descriptor has addresses.
func (a *udpAddress) Set(s string) error {
	if ip, err := netip.ParseAddr(s); err == nil && a.noPort {
		a.addr, a.without = netip.AddrPortFrom(ip.Unmap(), 0), true
		return nil
	}
	addr, err := netip.ParseAddrPort(s)
	if err != nil {
		return errors.New("it is not IP:PORT, such as 192.0.2.1:9001 or [2001:db8::1]:9001")
	}
	a.addr, a.without = netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port()), false
	return nil
}

// plus is the address with a port that is n higher; port 0 stays, it means any.
func plus(a netip.AddrPort, n int) netip.AddrPort {
	if a.Port() == 0 {
		return a
	}
	return netip.AddrPortFrom(a.Addr(), a.Port()+uint16(n))
}

// hangups are the process' SIGHUPs. They are caught from before the role says that it runs, since nobody
// catching them would end it.
type hangups chan os.Signal

func catchHangups() hangups {
	h := make(hangups, 1)
	signal.Notify(h, syscall.SIGHUP)
	return h
}

func (h hangups) stop() { signal.Stop(h) }

// run calls f at every SIGHUP until ctx ends.
func (h hangups) run(ctx context.Context, f func()) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-h:
			f()
		}
	}
}

// untilSignal returns a context that ends at the next SIGINT or SIGTERM, or after a time. It is for what
// is done after the first one.
func untilSignal(limit time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	return ctx, func() { stop(); cancel() }
}
