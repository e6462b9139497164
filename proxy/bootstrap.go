package proxy

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"torproxy/proxy/circuit"
	"torproxy/proxy/route"
	"torproxy/wire/directory"
	"torproxy/wire/netdoc"
)

// Progress is how far the proxy is on its way to carry a connection.
type Progress struct {
	Percent int    // 0 to 100; 100 is ready
	Summary string // a sentence for a person: what it waits for and, if something is wrong, what
}

// The steps of the bootstrap, in percent.
const (
	percentAsking   = 10  // no usable consensus
	percentKeys     = 25  // a consensus, but too few of its relays' onion keys
	percentRelays   = 40  // a consensus, but no route in it
	percentBuilding = 75  // a route, but no circuit has stood yet, or none can be built any more
	percentReady    = 100 // a circuit has stood, and others can be built for all that is known
)

// reportInterval is how often the state is looked at besides when the consensus changes: clocks and
// documents run out without an event.
const reportInterval = time.Second

// Ready is closed when the first circuit stands.
func (p *Proxy) Ready() <-chan struct{} { return p.ready }

// Progress returns how far the bootstrap is now. It goes back when the consensus runs out, and when no
// circuit can be built any more.
func (p *Proxy) Progress() Progress {
	c, err := p.usable()
	if _, ok := errors.AsType[*directory.KeysError](err); ok {
		return Progress{percentKeys, err.Error()}
	}
	if c == nil {
		if err == nil {
			return Progress{percentAsking, "asking the authorities for the consensus"}
		}
		return Progress{percentAsking, err.Error()}
	}
	if err := p.routable(c); err != nil {
		return Progress{percentRelays, err.Error()}
	}
	trouble := p.health.trouble(p.pool.standing())
	select {
	case <-p.ready:
	default:
		return Progress{percentBuilding, buildingSummary(c, trouble)}
	}
	if trouble != nil {
		return Progress{percentBuilding, "no circuit can be built any more: " + probableCause(trouble)}
	}
	return Progress{percentReady, p.readySummary(c)}
}

func buildingSummary(c *netdoc.Consensus, trouble error) string {
	s := fmt.Sprintf("consensus with %d relays; building the first circuit", len(c.Relays))
	if trouble != nil {
		s += ", so far in vain: " + probableCause(trouble)
	}
	return s
}

// probableCause says for a person why circuits fail. No first hop within reach is most often this machine's
// own network.
func probableCause(err error) string {
	if failureOf(err) == FailureGuard {
		return "no guard answers, this machine may be offline, or UDP blocked"
	}
	if failed, ok := errors.AsType[*circuit.BuildError](err); ok && failed.Hop == 0 {
		return "no first relay can be reached, this machine may be offline, or UDP blocked: " + err.Error()
	}
	return err.Error()
}

// readySummary says that the proxy is ready and what nevertheless is not as it should be: why the consensus in
// use was not followed by another, and until when it is good; which ports no exit leads to.
func (p *Proxy) readySummary(c *netdoc.Consensus) string {
	summary := "ready"
	if err := p.follower.Stale(); err != nil {
		summary = "ready, with an old consensus: " + err.Error()
	}
	var ports []string
	for _, a := range p.demand.wanted(p.cfg.Hops) {
		if _, none := errors.AsType[*route.NoExit](p.routableTo(c, a.req)); none && a.Choice == "" {
			ports = append(ports, strconv.Itoa(int(a.Port)))
		}
	}
	if len(ports) > 0 {
		summary += "; no exit of this network leads to port " + strings.Join(ports, ", ")
	}
	return summary
}

// report tells Config.Progress about every change until ctx ends.
func (p *Proxy) report(ctx context.Context) error {
	if p.cfg.Progress == nil {
		return nil
	}
	tick := time.NewTicker(reportInterval)
	defer tick.Stop()
	ready := p.ready
	var last Progress
	for {
		changed := p.follower.Changed()
		if now := p.Progress(); now != last {
			last = now
			p.cfg.Progress(now)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ready:
			ready = nil
		case <-changed:
		case <-tick.C:
		}
	}
}
