package dirauth

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"torproxy/wire"
	"torproxy/wire/directory"
	"torproxy/wire/netdoc"
)

// What a voter sends to the other authorities, and what it fetches from them.

const (
	firstResend = 20 * time.Millisecond // doubled each time
	lastResend  = time.Second
	maxAnswer   = 1 << 10 // bytes of an answer to a word
)

// pathOf is where a word is posted.
func pathOf(w Word) string {
	return [...]string{directory.VotePath, directory.EchoPath, directory.SignaturePath}[w]
}

// send brings a word to an authority, again and again until it has it, refuses it, or the time is over.
func (v *voter) send(ctx context.Context, to netdoc.Authority, w Word, raw []byte, until time.Time) {
	ctx, cancel := context.WithTimeout(ctx, until.Sub(v.now()))
	defer cancel()
	for wait := firstResend; ; wait = min(2*wait, lastResend) {
		_, err := v.peers.Post(ctx, directory.PeerOf(to), pathOf(w), raw, maxAnswer)
		if err == nil {
			return
		}
		if refusal, ok := errors.AsType[*directory.StatusError](err); ok && refusal.Code != http.StatusServiceUnavailable {
			v.log.Warn("word refused", "word", w, "by", to.Nickname, "reason", refusal.Message)
			return
		}
		select {
		case <-ctx.Done():
			v.log.Debug("word not delivered", "word", w, "to", to.Nickname, "err", err)
			return
		case <-time.After(wait):
		}
	}
}

// gather fetches what a round misses, as far as it is to be had before the round goes on without.
func (v *voter) gather(ctx context.Context, r *openRound, m missing) {
	// Half of what is left: what comes may name something that must be fetched, too, and a liar that names what
	// nobody has must not use up the time for that.
	ctx, cancel := context.WithTimeout(ctx, r.times.gatherBy.Sub(v.now())/2)
	defer cancel()
	var mu sync.Mutex // guards without
	without := missing{votes: map[netdoc.VoteRef][]wire.ID{}, descriptors: map[netdoc.Digest][]wire.ID{}}
	var work sync.WaitGroup
	for ref, who := range m.votes {
		v.fetching(ctx, &work, func() {
			if !v.fetch(ctx, who, directory.VotePath, ref.Digest, netdoc.MaxVote, func(raw []byte) error { return v.fetchedVote(r, ref, raw) }) {
				mu.Lock()
				defer mu.Unlock()
				without.votes[ref] = nil
			}
		})
	}
	for digest, who := range m.descriptors {
		v.fetching(ctx, &work, func() {
			if !v.fetch(ctx, who, directory.DescriptorPath, digest, netdoc.MaxDescriptor, func(raw []byte) error { return v.fetchedDescriptor(r, digest, raw) }) {
				mu.Lock()
				defer mu.Unlock()
				without.descriptors[digest] = nil
			}
		})
	}
	work.Wait()
	v.mu.Lock()
	r.gathered(without)
	v.mu.Unlock()
	v.wakeUp()
}

// fetching runs f in a goroutine when fewer than fetchesAtOnce run; not at all if ctx ends before.
func (v *voter) fetching(ctx context.Context, work *sync.WaitGroup, f func()) {
	select {
	case v.fetches <- struct{}{}:
	case <-ctx.Done():
		return
	}
	work.Go(func() {
		defer func() { <-v.fetches }()
		f()
	})
}

// fetch gets a document by its digest from one authority after another until accept takes it. Each gets
// its share of the time: one that stalls must not keep the others from being asked.
func (v *voter) fetch(ctx context.Context, who []wire.ID, path string, digest netdoc.Digest, limit int64, accept func(raw []byte) error) bool {
	for i, id := range who {
		a, ok := v.network.Authority(id)
		if !ok {
			continue
		}
		deadline, _ := ctx.Deadline()
		share, cancel := context.WithTimeout(ctx, time.Until(deadline)/time.Duration(len(who)-i))
		raw, _, err := v.peers.Fetch(share, directory.PeerOf(*a), path+"/"+digest.String(), "", limit)
		cancel()
		if err == nil {
			err = accept(raw)
		}
		if err == nil {
			return true
		}
		v.log.Debug("document not fetched", "path", path, "digest", digest.String(), "from", a.Nickname, "err", err)
	}
	return false
}

func (v *voter) fetchedVote(r *openRound, ref netdoc.VoteRef, raw []byte) error {
	vote, err := netdoc.ParseVote(raw, v.network)
	if err != nil {
		return err
	}
	if refOf(vote) != ref {
		return errors.New("dirauth: another vote than the one asked for")
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	return r.addVote(v.now(), vote)
}

// fetchedDescriptor keeps a descriptor for the round, whatever the roster makes of it: the majority of the
// votes decides what is in the consensus.
func (v *voter) fetchedDescriptor(r *openRound, digest netdoc.Digest, raw []byte) error {
	d, err := netdoc.ParseDescriptor(raw)
	if err != nil {
		return err
	}
	if d.Digest() != digest {
		return errors.New("dirauth: another descriptor than the one asked for")
	}
	v.mu.Lock()
	r.library[digest] = d
	v.mu.Unlock()
	answer := v.roster.admit(d, v.now())
	v.log.Debug("descriptor fetched from another authority", "relay", d.ID.Short(), "result", answer.String())
	return nil
}
