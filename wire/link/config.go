package link

import (
	"context"
	"crypto/ed25519"
	"errors"
	"log/slog"
	"net"
	"time"

	"github.com/quic-go/quic-go"

	"torproxy/wire"
)

// Config is what a Node needs. Only Conn is required.
type Config struct {
	// Conn is the node's one socket: every link, in and out, circuits and directory requests, uses it.
	// The caller closes it after Run has returned. A *net.UDPConn gets the kernel's fast paths; any
	// other net.PacketConn works too, a simulated network's among them.
	Conn net.PacketConn

	// Identity is the node's Ed25519 key. Without it the node is a client: it presents no certificate,
	// accepts no link, and its peers may open no stream to it.
	Identity ed25519.PrivateKey

	// Known reports whether an identity is a relay of the current or previous consensus, or an authority.
	// Only then does an accepted link count as that one's; all others are treated as clients. Nil knows
	// nobody. It is called from many goroutines.
	Known func(wire.ID) bool

	// Circuit serves a circuit stream that a peer opened, in a goroutine of its own. The stream is reset
	// when it returns. Nil refuses circuits.
	Circuit func(ctx context.Context, s *Stream)

	// Directory serves an accepted connection for directory requests (ALPN h3), in a goroutine of its
	// own. The connection is closed when it returns. Nil refuses them.
	Directory func(ctx context.Context, c *quic.Conn)

	// Log gets links opened and closed at debug level. Nil discards.
	Log *slog.Logger
}

func (c *Config) check() error {
	if c.Conn == nil {
		return errors.New("link: no socket given")
	}
	if c.Identity != nil && len(c.Identity) != ed25519.PrivateKeySize {
		return errors.New("link: identity is not an Ed25519 private key")
	}
	if c.Identity == nil && (c.Circuit != nil || c.Directory != nil) {
		return errors.New("link: a node that serves needs an identity")
	}
	return nil
}

// What is set here differs from quic-go's defaults on purpose.
const (
	dialTimeout   = 5 * time.Second  // a link that takes longer is of no use to the circuit that waits for it
	dialMemory    = 10 * time.Second // a failed dial is not repeated for so long: circuits must not hammer a dead relay
	emptyLifetime = 3 * time.Minute  // a link without a circuit is closed by its dialler after this long
	emptyGrace    = 30 * time.Second // and by the other side so much later: both at once would meet a circuit that was just opened
	openLease     = 10 * time.Second // who asked for an empty link has this long, less than the grace, to open a circuit on it
	retiredLife   = dialTimeout      // an empty link that lost to another; the peer may not know of the other yet

	// A peer that dies without a word is noticed 12 s after its last packet, by who waits for something
	// from it as by who does not: a ping goes out when nothing has come for keepAlive (default: never), and
	// the link is dead when nothing has come for idleTimeout behind that (default 30 s; RFC 9000, section
	// 10.1, counts it from the first packet that wants an answer). In eight seconds the ping is repeated at
	// least four times over the longest paths of the Internet; as the pauses between repeats double, twice
	// the time would add one more. The pings also hold NAT mappings. An idle link costs 14 bytes a
	// second at most in each direction, 28 with the headers of UDP and IPv4.
	keepAlive   = 4 * time.Second
	idleTimeout = 8 * time.Second

	// A relay pair shares one link: the default of 100 streams would be 100 circuits.
	maxCircuits = 16384
	// HTTP/3 opens three one-way streams (control, two of QPACK); nothing else may open any.
	maxUniStreams = 3

	// Bytes a stalled circuit may hold per hop, at the beginning and later. The default grows to 6 MB: too
	// much queue in front of a slow destination, and the delay of everything behind it: what a hop queues is
	// what a hop delays. A circuit's four downloads delay its small requests by 30 ms where this grows to
	// 1 MiB, by 4 ms where it grows to 256 KiB, and carry as much (proxy/PERFORMANCE.md). Over a line with a
	// round trip of 100 ms it lets one circuit have 20 Mbit/s.
	streamWindow    = 128 << 10
	maxStreamWindow = 256 << 10

	// MaxQueued is how many bytes one direction of a circuit may hold in a node that has stopped reading
	// it: the window, and the cells that were read last.
	MaxQueued = maxStreamWindow + len(cellBuffer{})

	// The connection's window must exceed what its active circuits use together, or stalled circuits
	// freeze the others (default 15 MB: fifteen circuits stalled at their window).
	connWindow    = 8 << 20
	maxConnWindow = 512 << 20

	// Above so many handshakes a second from unproven addresses, a dialler must first show that it
	// receives at its address (Retry): it costs it one round trip and keeps forged floods cheap.
	unprovenPerSecond = 250
)

// quicConfig returns the transport settings of one side. A client's peers open no streams to it.
func quicConfig(incomingCircuits, uniStreams int64) *quic.Config {
	return &quic.Config{
		Versions:                       []quic.Version{quic.Version1},
		HandshakeIdleTimeout:           dialTimeout,
		MaxIdleTimeout:                 idleTimeout,
		KeepAlivePeriod:                keepAlive,
		InitialStreamReceiveWindow:     streamWindow,
		MaxStreamReceiveWindow:         maxStreamWindow,
		InitialConnectionReceiveWindow: connWindow,
		MaxConnectionReceiveWindow:     maxConnWindow,
		MaxIncomingStreams:             incomingCircuits,
		MaxIncomingUniStreams:          uniStreams,
		Allow0RTT:                      false, // early data can be replayed
		TokenStore:                     nil,   // a token would link a client's connections to one another
		EnableDatagrams:                false,
	}
}
