package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
)

// listener is a port of the client.
type listener struct {
	net.Listener
	flag  string // that chose it
	shown string // HOST:PORT really bound, or unix:/path
}

// listen opens the port that a flag asks for. Its errors are failures.
func listen(ctx context.Context, flag string, a listenAddress) (*listener, error) {
	if a.network == "unix" {
		l, err := listenUnix(ctx, a.address)
		if err != nil {
			return nil, explainUnix(flag, a.address, err)
		}
		return &listener{Listener: l, flag: flag, shown: a.String()}, nil
	}
	var config net.ListenConfig
	l, err := config.Listen(ctx, a.family(), a.address)
	if err != nil {
		return nil, explainTCP(flag, a, err)
	}
	return &listener{Listener: l, flag: flag, shown: l.Addr().String()}, nil
}

// exposed reports whether other machines may reach the listener.
func (l *listener) exposed() bool {
	a, err := netip.ParseAddrPort(l.Addr().String())
	return err == nil && !a.Addr().Unmap().IsLoopback()
}

// explainTCP is what is told of a TCP port that can't be listened on, except that it is taken: whose it is
// takes asking.
func explainTCP(flag string, a listenAddress, err error) *failure {
	f := &failure{
		code: codeListen, err: err,
		what:   fmt.Sprintf("cannot listen on %s (--%s): %v", a.address, flag, systemError(err)),
		advice: fmt.Sprintf("choose another with --%s; port 0 picks a free one", flag),
	}
	switch {
	case addressInUse(err):
		f.code, f.what = codeTaken, fmt.Sprintf("cannot listen on %s (--%s): the port is taken", a.address, flag)
	case errors.Is(err, fs.ErrPermission) && a.port() < 1024:
		f.cause = "ports below 1024 are the administrator's"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		f.cause = "this machine has no such address"
	}
	return f
}

// addressInUse reports whether somebody else has the address.
func addressInUse(err error) bool {
	const wsaAddressInUse = syscall.Errno(10048) // Windows does not use the name it defines
	return errors.Is(err, syscall.EADDRINUSE) || runtime.GOOS == "windows" && errors.Is(err, wsaAddressInUse)
}

// systemError is an error of package net without the operation and the address, which the sentence around
// it has.
func systemError(err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		err = op.Err
	}
	if call, ok := errors.AsType[*os.SyscallError](err); ok {
		err = call.Err
	}
	return err
}

var (
	errNoSocket = errors.New("there is a file of that name that is not a socket")
	errLongPath = errors.New("the path is too long")
)

// maxSocketPath is how many bytes of a path fit into a socket's address on every system; Linux has a few more.
const maxSocketPath = 103

// unixListener takes its file away when it is closed, unless it has become another's.
type unixListener struct {
	net.Listener
	path string
	file os.FileInfo
}

func (l *unixListener) Close() error {
	if now, err := os.Lstat(l.path); err == nil && os.SameFile(now, l.file) {
		os.Remove(l.path)
	}
	return l.Listener.Close()
}

// listenUnix listens on a socket that only this user can connect to. One that somebody listens on is left
// alone, one that nobody does is replaced. The socket is made in a directory of its own and moved to its
// place when its mode is right: there is no moment at which others could connect.
func listenUnix(ctx context.Context, path string) (net.Listener, error) {
	if len(path) > maxSocketPath {
		return nil, errLongPath // it could be made, but nobody could connect to it
	}
	if err := checkStale(ctx, path); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(filepath.Dir(path), ".tp")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	made := filepath.Join(dir, "s")
	var config net.ListenConfig
	l, err := config.Listen(ctx, "unix", made)
	if err != nil {
		return nil, err
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	file, err := placeSocket(made, path)
	if err != nil {
		l.Close()
		return nil, err
	}
	return &unixListener{Listener: l, path: path, file: file}, nil
}

func placeSocket(made, path string) (os.FileInfo, error) {
	if err := os.Chmod(made, 0o600); err != nil {
		return nil, err
	}
	if err := os.Rename(made, path); err != nil {
		return nil, err
	}
	return os.Lstat(path)
}

// checkStale returns nil if path is free or a socket that nobody listens on.
func checkStale(ctx context.Context, path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return errNoSocket
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", path)
	switch {
	case err == nil:
		conn.Close()
		return syscall.EADDRINUSE
	case errors.Is(err, syscall.ECONNREFUSED):
		return nil
	default:
		return err // it may be alive, and busy or another user's
	}
}

// explainUnix is what is told of a socket that can't be listened on.
func explainUnix(flag, path string, err error) *failure {
	f := &failure{
		code: codeListen, err: err,
		what:   fmt.Sprintf("cannot listen on unix:%s (--%s): %v", path, flag, systemError(err)),
		advice: fmt.Sprintf("choose another path with --%s", flag),
	}
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		f.code, f.what = codeTaken, fmt.Sprintf("cannot listen on unix:%s (--%s): somebody else does", path, flag)
		f.cause = "another torproxy seems to run"
	case errors.Is(err, fs.ErrNotExist):
		f.cause = "its directory does not exist"
	case errors.Is(err, fs.ErrPermission):
		f.cause = "its directory, or the socket in it, is another user's"
	case errors.Is(err, errLongPath), errors.Is(err, syscall.EINVAL): // of the one that it is made at
		f.cause = fmt.Sprintf("a socket's path has at most %d bytes, and its directory's some fewer", maxSocketPath)
	}
	return f
}
