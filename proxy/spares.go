package proxy

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"torproxy/proxy/guard"
	"torproxy/proxy/need"
	"torproxy/proxy/route"
	"torproxy/wire/netdoc"
)

// Circuits are built ahead of need, so that nobody waits for one. How many, and whereto, package need
// predicts; what is built is bounded here, in rate and in number, whatever is asked for. A client that nobody
// uses keeps one circuit and, as long as its relays stay, builds nothing at all.
const (
	defaultSpares = 6 // for the web: a browser opens with as many labels at once

	maxUnused = 2 * need.Most // late circuits count here, too; one more is closed when it comes

	tendInterval = 15 * time.Second
)

// demand is what package need knows, for concurrent use.
type demand struct {
	usual choice // of the configuration: what most requests will ask for, and no Kind names

	mu      sync.Mutex
	habits  *need.Habits
	choices map[string]choice // of the kinds that are remembered
}

func (d *demand) init(cfg Config) {
	d.usual = choice{cfg.Exit, cfg.Exclude}
	d.habits, d.choices = need.New(cfg.Spares, time.Now()), map[string]choice{}
}

// choice is what a request asks of the relays, besides where they lead.
type choice struct{ exit, exclude route.Selectors }

// key is equal for equal choices, and empty for none.
func (c choice) key() string {
	if len(c.exit) == 0 && len(c.exclude) == 0 {
		return ""
	}
	return c.exit.String() + "\x00" + c.exclude.String()
}

// or is the choice of somebody who has made c where usual is what all have.
func (c choice) or(usual choice) choice {
	if len(c.exit) == 0 {
		c.exit = usual.exit
	}
	c.exclude = slices.Concat(c.exclude, usual.exclude)
	return c
}

// ahead is a circuit that should stand although nobody has asked for it yet.
type ahead struct {
	need.Need
	req route.Request
}

// kindOf returns the kind of circuit that a request for a route wants.
func (d *demand) kindOf(req route.Request) need.Kind {
	k := need.Kind{Port: req.Target.Port}
	if key := (choice{req.Exit, req.Exclude}).key(); key != d.usual.key() {
		k.Choice = key
	}
	return k
}

// asked notes a request that has got its circuit; fresh says that nobody had used that before.
func (d *demand) asked(req route.Request, fresh bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	k := d.kindOf(req)
	d.habits.Asked(k, fresh, time.Now())
	if k.Choice != "" {
		d.choices[k.Choice] = choice{req.Exit, req.Exclude}
	}
}

// wanted returns what should stand now, the largest need first.
func (d *demand) wanted(hops int) []ahead {
	d.mu.Lock()
	defer d.mu.Unlock()
	needs := d.habits.Needs(time.Now())
	all := make([]ahead, len(needs))
	kept := map[string]choice{}
	for i, n := range needs {
		c, known := d.choices[n.Choice]
		switch {
		case n.Choice == "":
			c = d.usual
		case known:
			kept[n.Choice] = c
		}
		all[i] = ahead{n, route.Request{Hops: hops, Target: route.Target{Port: n.Port}, Exit: c.exit, Exclude: c.exclude}}
	}
	d.choices = kept
	return all
}

// inUse reports whether anybody has used the client lately.
func (d *demand) inUse() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.habits.InUse(time.Now())
}

// wanted returns what should stand and can: what no route leads to is left out. Where none leads to any
// port that is predicted, a circuit to anywhere shows at least that the network works.
func (p *Proxy) wanted(c *netdoc.Consensus) []ahead {
	all := p.demand.wanted(p.cfg.Hops)
	possible := slices.DeleteFunc(slices.Clone(all), func(a ahead) bool { return p.routableTo(c, a.req) != nil })
	if len(possible) == 0 && len(all) > 0 {
		n := need.Need{Circuits: all[0].Circuits}
		return []ahead{{n, p.anywhere()}}
	}
	return possible
}

// keepSpares builds circuits ahead of need until ctx ends.
func (p *Proxy) keepSpares(ctx context.Context) error {
	k := newKeeper(p)
	tick := time.NewTicker(tendInterval)
	defer tick.Stop()
	due := time.NewTimer(0)
	defer due.Stop()
	for {
		changed := p.follower.Changed()
		p.heardGuards()
		k.fill(ctx)
		due.Reset(k.wait())
		select {
		case <-ctx.Done():
			for ; k.under > 0; k.under-- {
				<-k.done
			}
			return nil
		case <-p.pool.spares:
		case b := <-k.done:
			k.finished(b)
		case <-changed:
			k.rests = map[need.Kind]rest{}
			if c := p.follower.Current(); c != nil {
				p.pool.retireGone(c)
			}
		case <-due.C:
		case now := <-tick.C:
			p.pool.tend(now, p.demand.inUse())
		}
	}
}

// buildSpare adds a circuit to the pool that nobody waits for.
func (p *Proxy) buildSpare(ctx context.Context, c *netdoc.Consensus, a ahead) error {
	b := p.newBuild(c, a.req, nil, trace{})
	err := b.run(ctx)
	missing, isGuard := errors.AsType[*guard.WaitError](err)
	if err != nil && ctx.Err() == nil && a.Choice == "" && !b.stood && (!isGuard || missing.Down) {
		p.health.allFailed(err)
	}
	return err
}

// missing returns the first of what is wanted that is not there; what is under way counts for everything, and
// shows when it stands what it is good for. Where no more fits in the pool nothing is missing.
func (p *pool) missing(wanted []ahead, under int) (ahead, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.sparesLocked()+under >= maxUnused {
		return ahead{}, false
	}
	for _, a := range wanted {
		have, key := under, choice{a.req.Exit, a.req.Exclude}.key()
		for _, h := range p.circuits {
			if (h.spare() || h.guard != nil && !h.retired) && h.choice == key && serves(h.circuit.Route(), a.req) {
				have++
			}
		}
		if have < a.Circuits {
			return a, true
		}
	}
	return ahead{}, false
}

// spare reports whether nobody uses the circuit, and anybody of its choice may.
func (h *held) spare() bool { return !h.used && !h.retired && h.reserved == nil && h.guard == nil }

// serves reports whether a circuit along a route is what a request asks for.
func serves(relays []*netdoc.Relay, req route.Request) bool {
	exit := relays[len(relays)-1]
	if !exitFits(exit, req.Target) || len(req.Exit) > 0 && !req.Exit.Match(exit) {
		return false
	}
	return !slices.ContainsFunc(relays, req.Exclude.Match)
}

// lostSpare reports, once, that a spare has ended by itself.
func (p *pool) lostSpare() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	lost := p.lost
	p.lost = false
	return lost
}

func (p *pool) wakeSpares() {
	select {
	case p.spares <- struct{}{}:
	default:
	}
}
