package directory

import (
	"context"
	"slices"
	"sync"
	"time"

	"torproxy/wire/netdoc"
)

// reply is one server's answer to a question: a document, why what it sent is none, or why it sent none.
type reply struct {
	*question
	doc     *netdoc.Consensus
	invalid error
	err     error
}

// question is a request of a poll that runs.
type question struct {
	from    source
	began   time.Time
	account *account
}

// A server that is delivering is left alone for so long: on a slow line every other that is asked takes its
// share from it, and with a few of them none is done in time. Not for ever: one that has something to hide
// could deliver slowly until the poll's time is over. A mirror is anybody, an authority is not.
const (
	mirrorAlone    = 5 * time.Second
	authorityAlone = 15 * time.Second
)

// alone reports whether no other server is to be asked because of this one.
func (q *question) alone() bool {
	most := authorityAlone
	if q.from.mirror {
		most = mirrorAlone
	}
	return time.Since(q.began) < most && q.account.delivers(hedge)
}

// poll asks servers until one has a newer consensus, which news tells, and returns what the authorities among
// the others said. It asks the next one when an answer is no help or when nothing comes of it for a while,
// and has nothing running when it returns.
func (f *Follower) poll(ctx context.Context) (t tally, news bool) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	var asking sync.WaitGroup
	defer asking.Wait()
	defer cancel()
	waiting := f.sources()
	var running []*question
	replies := make(chan reply, len(waiting))
	look := time.NewTimer(0)
	defer look.Stop()
	for len(waiting) > 0 || len(running) > 0 {
		due := look.C
		if len(waiting) == 0 {
			due = nil
		}
		select {
		case <-due:
			look.Reset(hedge)
			if slices.ContainsFunc(running, (*question).alone) {
				continue
			}
			asked, account := withAccount(ctx)
			q := &question{from: waiting[0], began: time.Now(), account: account}
			waiting, running = waiting[1:], append(running, q)
			asking.Go(func() { replies <- f.ask(asked, q) })
			if !q.from.mirror {
				t.asked++
			}
		case r := <-replies:
			running = slices.DeleteFunc(running, func(q *question) bool { return q == r.question })
			if f.take(r, &t) {
				return t, true
			}
			look.Reset(0)
		}
	}
	return t, false
}

// ask gets the newest consensus that a server has. A difference that is of no use is followed by a request
// for the whole document.
func (f *Follower) ask(ctx context.Context, q *question) reply {
	r, from := reply{question: q}, q.from
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
		t.failed(r.err, r.account.total())
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
