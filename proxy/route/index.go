package route

import (
	"math/rand/v2"
	"slices"
	"sync"

	"torproxy/wire"
	"torproxy/wire/netdoc"
)

// Index is a consensus prepared for many draws. It is immutable and safe for concurrent use; whoever draws
// routes keeps one for the consensus in use.
type Index struct {
	consensus *netdoc.Consensus
	nodes     []node // the relays that run and whose onion key is at hand, ascending by ID
	rules     rules
	tables    [wire.MaxHops + 1]func() *tables // by hops
}

// node is one relay of an Index.
type node struct {
	relay   *netdoc.Relay
	class   class
	subnets []subnet // nil where no rule asks for them
}

// NewIndex prepares a consensus. It takes about half a millisecond for 10,000 relays.
func NewIndex(c *netdoc.Consensus) *Index {
	ix := &Index{
		consensus: c,
		nodes:     make([]node, 0, len(c.Relays)),
		rules:     rules{family: true, subnet: c.Params.SubnetRule},
	}
	flagged := anyGuard(c.Relays)
	var subnets []subnet
	for i := range c.Relays {
		r := &c.Relays[i]
		if !runs(r) {
			continue
		}
		n := node{relay: r, class: classOf(r, !flagged || r.Flags.Has(netdoc.Guard))}
		if ix.rules.subnet {
			from := len(subnets)
			for _, a := range r.Addresses {
				subnets = append(subnets, subnetOf(a.Addr()))
			}
			n.subnets = subnets[from:len(subnets):len(subnets)]
		}
		ix.nodes = append(ix.nodes, n)
	}
	for hops := 1; hops < len(ix.tables); hops++ {
		ix.tables[hops] = sync.OnceValue(func() *tables { return ix.tabulate(hops) })
	}
	return ix
}

// anyGuard reports whether any relay has the Guard flag. Where none has, every relay may be a guard.
func anyGuard(relays []netdoc.Relay) bool {
	for i := range relays {
		if relays[i].Flags.Has(netdoc.Running | netdoc.Guard) {
			return true
		}
	}
	return false
}

// runs reports whether circuits can be built through a relay: not without its onion key.
func runs(r *netdoc.Relay) bool { return r.Flags.Has(netdoc.Running) && r.OnionKey() != nil }

// Consensus returns what the Index was made from.
func (ix *Index) Consensus() *netdoc.Consensus { return ix.consensus }

// Running returns how many relays can be part of a circuit.
func (ix *Index) Running() int { return len(ix.nodes) }

// GuardWeight returns a relay's weight as the first hop of circuits of that many hops. The weights of all
// relays together fit 64 bits.
func (ix *Index) GuardWeight(hops int) func(*netdoc.Relay) uint64 {
	t := ix.tables[max(min(hops, wire.MaxHops), 2)]()
	return func(r *netdoc.Relay) uint64 {
		n := ix.find(r)
		if n == nil {
			return 0
		}
		return t.weigh(n, atGuard)
	}
}

// find returns the node of a relay, which may be of another consensus; nil: it has none.
func (ix *Index) find(r *netdoc.Relay) *node {
	i, found := slices.BinarySearchFunc(ix.nodes, r, func(n node, r *netdoc.Relay) int {
		return netdoc.CompareIDs(n.relay.ID, r.ID)
	})
	if !found {
		return nil
	}
	return &ix.nodes[i]
}

// Latest holds the Index of the consensus in use. The zero Latest is empty. It is safe for concurrent use.
type Latest struct {
	mu sync.Mutex
	ix *Index
}

// Of returns the Index of a consensus: the one that is held, or a new one, which is held from then on.
func (l *Latest) Of(c *netdoc.Consensus) *Index {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ix == nil || l.ix.consensus != c {
		l.ix = NewIndex(c)
	}
	return l.ix
}

// Check reports why there is no route, nil if there is one. It asks for no first hop at Request.First. It
// takes microseconds, as long as there is a route.
func (ix *Index) Check(req Request) error {
	req.First = nil
	_, err := ix.Choose(req, rand.New(rand.NewPCG(0, 0)))
	return err
}
