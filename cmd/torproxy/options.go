package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"torproxy/proxy/frontdoor"
	"torproxy/proxy/route"
	"torproxy/wire"
)

// options are the client's flags.
type options struct {
	hops    hops
	socks   listenAddress
	http    listenAddress
	network fileName // "": the embedded network
	dataDir fileName // "": nothing is kept

	relays      relayChoice // what requests use whose user name does not say
	isolateDest bool
	optimistic  bool
	prefetch    onOff
	openLinks   openLinks
	browser     string // "": $BROWSER, or one that is installed
}

// check finds what is wrong with flags that are right one by one.
func (o *options) check() error {
	if o.socks == (listenAddress{network: "tcp", address: o.http.address}) && !o.http.anyPort() {
		return fmt.Errorf("--socks and --http are both %s, but need a port each", o.http.address)
	}
	if o.dataDir != "" && o.network == "" {
		return errors.New("--data-dir keeps what is known of a network, but the private one is new at every start: give --network too")
	}
	excluded := func(s route.Selector) bool { return slices.Contains(o.relays.exclude, s) }
	if o.relays.exit != nil && !slices.ContainsFunc(o.relays.exit, func(s route.Selector) bool { return !excluded(s) }) {
		return fmt.Errorf("--exclude names all that --exit names (%s): no exit is left", o.relays.exit)
	}
	return nil
}

// relayList is the value of --exit and --exclude. Given again, it grows.
type relayList struct{ *route.Selectors }

// Type implements pflag.Value.
func (relayList) Type() string { return "RELAY" }

func (l relayList) String() string {
	if l.Selectors == nil { // pflag asks the zero value, too
		return ""
	}
	return l.Selectors.String()
}

// Set implements pflag.Value.
func (l relayList) Set(s string) error {
	more, err := route.ParseSelectors(s)
	*l.Selectors = append(*l.Selectors, more...)
	return err
}

// isolateBy is the value of --isolate.
type isolateBy struct{ dest *bool }

// Type implements pflag.Value.
func (isolateBy) Type() string { return "dest" }

func (b isolateBy) String() string {
	if b.dest == nil || !*b.dest {
		return ""
	}
	return "dest"
}

// Set implements pflag.Value. What is always kept apart is asked for by no word, and refused like any other.
func (b isolateBy) Set(s string) error {
	if s != "dest" {
		return errors.New("the only choice is dest; user names and ports are always kept apart")
	}
	*b.dest = true
	return nil
}

// openLinks is the value of --open-links.
type openLinks frontdoor.OpenLinks

func (o *openLinks) String() string { return string(*o) }

// Type implements pflag.Value.
func (o *openLinks) Type() string { return "ask|always|never" }

// Set implements pflag.Value.
func (o *openLinks) Set(s string) error {
	switch frontdoor.OpenLinks(s) {
	case frontdoor.Ask, frontdoor.Always, frontdoor.Never:
		*o = openLinks(s)
		return nil
	}
	return errors.New("the choices are ask, always and never")
}

// fileName is the value of --network and --data-dir.
type fileName string

func (n *fileName) String() string { return string(*n) }

// Type implements pflag.Value.
func (n *fileName) Type() string { return "FILE" }

// Set implements pflag.Value. An empty name, mostly of an unset variable in a script, must not silently
// mean another network.
func (n *fileName) Set(s string) error {
	if s == "" {
		return errors.New("the name of a file is missing")
	}
	*n = fileName(s)
	return nil
}

// hops is the value of --hops.
type hops int

func (h *hops) String() string { return strconv.Itoa(int(*h)) }

// Type implements pflag.Value: what stands for the value in the help.
func (h *hops) Type() string { return "N" }

// Set implements pflag.Value.
func (h *hops) Set(s string) error {
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > wire.MaxHops {
		return fmt.Errorf("a connection goes through 1 to %d relays", wire.MaxHops)
	}
	*h = hops(n)
	return nil
}

// listenAddress is the value of --socks and --http: what net.Listen is given.
type listenAddress struct {
	network string // "tcp" or "unix"
	address string // HOST:PORT with an IP address or nothing as HOST, or a path
	tcpOnly bool
}

func (a *listenAddress) String() string {
	if a.network == "unix" {
		return "unix:" + a.address
	}
	return a.address
}

// Type implements pflag.Value.
func (a *listenAddress) Type() string { return "ADDRESS" }

// Set implements pflag.Value. Of all names only localhost is taken: what any other resolves to is decided
// elsewhere, and may be more than one address.
func (a *listenAddress) Set(s string) error {
	if path, ok := strings.CutPrefix(s, "unix:"); ok {
		switch {
		case a.tcpOnly:
			return errors.New("the HTTP port is always TCP")
		case path == "":
			return errors.New("the path is missing")
		}
		a.network, a.address = "unix", path
		return nil
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return errors.New("it is not IP:PORT, such as 127.0.0.1:9050")
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("the port %.20q is not 0 to 65535", port)
	}
	switch host {
	case "localhost":
		host = "127.0.0.1"
	case "":
	default:
		ip, err := netip.ParseAddr(host)
		if err != nil {
			return fmt.Errorf("%.80q is no IP address", host)
		}
		host = ip.Unmap().String()
	}
	a.network, a.address = "tcp", net.JoinHostPort(host, port)
	return nil
}

// family is the network to listen on. An IPv4 address is that and nothing else: package net would take
// 0.0.0.0 for every address of both families.
func (a *listenAddress) family() string {
	if to, err := netip.ParseAddrPort(a.address); err == nil && to.Addr().Is4() {
		return "tcp4"
	}
	return a.network
}

// port is the TCP port that is asked for, 0 for any.
func (a *listenAddress) port() uint16 {
	_, port, _ := net.SplitHostPort(a.address)
	n, _ := strconv.ParseUint(port, 10, 16) // Set has looked at it
	return uint16(n)
}

func (a *listenAddress) anyPort() bool { return a.network == "tcp" && a.port() == 0 }
