// Package dirauth is a directory authority: it admits relays, tests them, votes on them with the other
// authorities once per round, and serves the consensus that they sign together (section 5 of SPEC.md).
// DIRECTORY.md beside this file says how, and why so.
//
//	relay --- descriptor ---> server ---> roster <--- prober --- handshake ---> relay
//	                                        |    <--- meter ---- echo --------> relay
//	                                     entries
//	                                        v
//	other authorities <--- vote, echo, signature ---> voter ---> round ---> ballot.tally
//	                                                    |
//	anybody <--- consensus --- server <--- follower <---+
package dirauth

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"torproxy/wire"
	"torproxy/wire/directory"
	"torproxy/wire/link"
	"torproxy/wire/netdoc"
)

// Config is what an Authority needs.
type Config struct {
	// Network is the network file; it lists this authority.
	Network *netdoc.Network

	// Identity is the authority's Ed25519 key.
	Identity ed25519.PrivateKey

	// Conn is the socket that the network file's address for this authority leads to. The caller closes
	// it after Run has returned.
	Conn net.PacketConn

	// Store keeps what must survive a restart. Nil: NewMemoryStore, for authorities that do not come
	// back.
	Store Store

	// Allow is a file of the relays that may register: an ID in each line, and comments that begin with #.
	// "" admits all.
	Allow string

	// Rejections is a file of relays that the operator wants out, or not to be exits; Reject writes it. No
	// such file is an empty one. Both files are read before every vote and by Reload; one with an error in
	// it is reported, and its last good content stays in force.
	Rejections string

	// Log gets relays and rounds at debug level, changes at info, trouble above. Nil discards.
	Log *slog.Logger

	now func() time.Time // tests' clocks; nil: time.Now
}

func (c *Config) check() error {
	switch {
	case c.Network == nil:
		return errors.New("dirauth: no network given")
	case len(c.Identity) != ed25519.PrivateKeySize:
		return errors.New("dirauth: identity is not an Ed25519 private key")
	case c.Conn == nil:
		return errors.New("dirauth: no socket given")
	}
	if err := c.Network.Check(); err != nil {
		return fmt.Errorf("dirauth: %w", err)
	}
	if id := wire.PublicID(c.Identity); !listed(c.Network, id) {
		return fmt.Errorf("dirauth: %s is no authority of network %s", id, c.Network.Name)
	}
	return nil
}

func listed(n *netdoc.Network, id wire.ID) bool {
	_, ok := n.Authority(id)
	return ok
}

// Authority is one directory authority. Its methods are safe for concurrent use.
type Authority struct {
	node     *link.Node
	client   *directory.Client
	follower *directory.Follower
	prober   *prober
	meter    *meter
	voter    *voter
	handler  http.Handler
}

// New makes an authority from what its store holds; Run starts it.
func New(cfg Config) (*Authority, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	if cfg.Store == nil {
		cfg.Store = NewMemoryStore()
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	a := &Authority{}
	var err error
	a.node, err = link.NewNode(link.Config{
		Conn:      cfg.Conn,
		Identity:  cfg.Identity,
		Directory: directory.Serving(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { a.handler.ServeHTTP(w, r) })),
		Log:       cfg.Log,
	})
	if err != nil {
		return nil, err
	}
	a.client = directory.NewClient(a.node)
	a.voter, err = newVoter(cfg, a.client)
	if err != nil {
		return nil, err
	}
	a.follower, a.handler = a.voter.follower, a.voter.handler()
	a.prober = &prober{roster: a.voter.roster, log: cfg.Log, try: handshake(a.node)}
	a.meter = &meter{roster: a.voter.roster, log: cfg.Log, try: echo(a.node)}
	return a, nil
}

// Run serves, tests and votes until ctx ends, and then returns nil; or until something fails, and returns
// that. Everything it started has ended when it returns. It is called once.
func (a *Authority) Run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var parts sync.WaitGroup
	var first sync.Once
	var cause error
	part := func(run func(context.Context) error) {
		parts.Go(func() {
			if err := run(ctx); err != nil {
				first.Do(func() { cause = err })
				stop()
			}
		})
	}
	part(a.node.Run)
	part(a.follower.Run)
	part(a.voter.run)
	part(a.prober.run)
	part(a.meter.run)
	<-ctx.Done()
	a.client.Close()
	parts.Wait()
	return cause
}

// ID returns the authority's identity.
func (a *Authority) ID() wire.ID { return a.node.ID() }

// Consensus returns the newest consensus, nil before the first. It is immutable; it may have expired.
func (a *Authority) Consensus() *netdoc.Consensus { return a.follower.Current() }

// Relays returns how many relays this authority found to be running, and how many it knows.
func (a *Authority) Relays() (running, known int) { return a.voter.roster.running() }

// Reload reads the operator's lists again: Config.Allow and Config.Rejections. Relays that they do not
// admit any more are forgotten at once. The error says what is wrong with a file; it is logged, too.
func (a *Authority) Reload() error { return a.voter.reload() }

// Proofs returns what the store keeps against authorities that said two different words in one round.
func (a *Authority) Proofs() ([]Proof, error) { return a.voter.store.Proofs() }

// Conflicts returns the pairs of different consensuses for one round that this process has met, at most
// four: each authority that signed both has lied.
func (a *Authority) Conflicts() []directory.Conflict { return a.follower.Conflicts() }
