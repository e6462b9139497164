package directory

import (
	"context"
	"sync"
	"time"

	"torproxy/wire/netdoc"
)

// reply is one server's answer to a poll: a document, why what it sent is none, or why it sent none.
type reply struct {
	from    source
	doc     *netdoc.Consensus
	invalid error
	err     error
}

// poll asks servers until one has a newer consensus, and returns what the authorities among the others said.
// It asks the next one when an answer is no help or does not come soon, and has nothing running when it
// returns.
func (f *Follower) poll(ctx context.Context) tally {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	var asking sync.WaitGroup
	defer asking.Wait()
	defer cancel()
	sources := f.sources()
	replies := make(chan reply, len(sources))
	var t tally
	asked, running := 0, 0
	slow := time.NewTimer(0)
	defer slow.Stop()
	for asked < len(sources) || running > 0 {
		next := slow.C
		if asked == len(sources) {
			next = nil
		}
		select {
		case <-next:
			from := sources[asked]
			asking.Go(func() { replies <- f.ask(ctx, from) })
			asked++
			running++
			if !from.mirror {
				t.asked++
			}
			slow.Reset(hedge)
		case r := <-replies:
			running--
			if f.take(r, &t) {
				return t
			}
			slow.Reset(0)
		}
	}
	return t
}

// ask gets the newest consensus that a server has. A difference that is of no use is followed by a request
// for the whole document.
func (f *Follower) ask(ctx context.Context, from source) reply {
	r := reply{from: from}
	path, tag := ConsensusPath, ""
	held, _, _ := f.latest()
	limit := int64(netdoc.MaxConsensus)
	if from.mirror && held != nil {
		// A mirror is anybody: what it sends may cost no more than a network that has grown much. Authorities
		// are asked without this bound.
		limit = min(limit, 4*int64(len(held.Raw()))+1<<20)
	}
	if held != nil {
		path, tag = consensusFrom(held), etag(held)
	}
	body, _, err := f.client.Fetch(ctx, from.Peer, path, tag, limit)
	if err == nil && netdoc.IsDifference(body) && held != nil {
		if r.doc, err = f.patched(body, held); err == nil {
			return r
		}
		f.log.Debug("a difference is of no use", "from", from.ID.Short(), "cause", err)
		body, _, err = f.client.Fetch(ctx, from.Peer, ConsensusPath, "", limit)
	}
	if r.err = err; err == nil {
		r.doc, r.invalid = netdoc.ParseConsensus(body, f.network)
	}
	return r
}

// patched returns what a difference makes of a consensus, verified.
func (f *Follower) patched(difference []byte, held *netdoc.Consensus) (*netdoc.Consensus, error) {
	raw, err := netdoc.ApplyDifference(difference, held)
	if err != nil {
		return nil, err
	}
	return netdoc.ParseConsensus(raw, f.network)
}

// take judges a reply; true means that a newer consensus has come. What a mirror fails to do is no news of
// the authorities.
func (f *Follower) take(r reply, t *tally) bool {
	if r.from.mirror && r.doc == nil {
		return false
	}
	if r.err != nil {
		t.failed(r.err)
		return false
	}
	before, _, _ := f.latest()
	err := r.invalid
	if err == nil {
		if before == nil || r.doc.ValidAfter > before.ValidAfter {
			f.gave(r.from)
		}
		err = f.accept(r.doc)
	}
	if !r.from.mirror {
		t.judged(err)
	}
	now, _, _ := f.latest()
	return err == nil && now != before
}
