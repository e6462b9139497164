package directory

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"torproxy/wire/netdoc"
)

const (
	// Authorities refuse descriptors that are new to them and older than two days. Where keys rotate daily a
	// descriptor never gets this old: each that is made anew is a change that every client fetches.
	renewal = 30 * time.Hour
	// The same descriptor is posted again so often, because an authority may have lost it: after twelve
	// rounds, within these bounds.
	repeatRounds = 12
	leastRepeat  = 30 * time.Second
	mostRepeat   = time.Hour
	// A refusal may have a passing cause, such as a clock; it is not worth hurry.
	refusedRetry = 2 * time.Second
)

// Poster sends a document to a server, as Client.Post does.
type Poster interface {
	Post(ctx context.Context, to Peer, path string, body []byte, limit int64) (answer []byte, err error)
}

// PublisherConfig is what a Publisher needs.
type PublisherConfig struct {
	Network *netdoc.Network // its authorities are published to
	Client  Poster          // a *Client

	// Descriptor makes the relay's signed descriptor of the moment. It is called by Run, never twice at
	// once: at the start, when Changed says so, and when the last one is thirty hours old.
	Descriptor func() ([]byte, error)

	// Changed is received from when the descriptor is to be made anew. It should have room for one value,
	// so that whoever sends need not wait. Nil: never.
	Changed <-chan struct{}

	// Log gets what each authority answered, once for each change. Nil discards.
	Log *slog.Logger
}

// Publisher registers a relay with every authority, and keeps it registered: it repeats what was not
// accepted, what may have been forgotten, and what has changed.
type Publisher struct {
	cfg PublisherConfig
	log *slog.Logger

	mu         sync.Mutex
	descriptor []byte
	edition    int           // counts descriptors
	renewed    chan struct{} // closed and replaced with each
}

// NewPublisher returns a Publisher; Run makes it publish.
func NewPublisher(cfg PublisherConfig) *Publisher {
	p := &Publisher{cfg: cfg, log: cfg.Log, renewed: make(chan struct{})}
	if p.log == nil {
		p.log = slog.New(slog.DiscardHandler)
	}
	return p
}

// Run publishes until ctx ends, then returns nil. Any other error is Descriptor's.
func (p *Publisher) Run(ctx context.Context) error {
	if err := p.renew(); err != nil {
		return err
	}
	var authorities sync.WaitGroup
	defer authorities.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for _, a := range p.cfg.Network.Authorities {
		authorities.Go(func() { p.register(ctx, a) })
	}
	timer := time.NewTimer(renewal)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-p.cfg.Changed:
		case <-timer.C:
		}
		if err := p.renew(); err != nil {
			return err
		}
		timer.Reset(renewal)
	}
}

// renew has the descriptor made anew and wakes everybody up.
func (p *Publisher) renew() error {
	raw, err := p.cfg.Descriptor()
	if err != nil {
		return fmt.Errorf("directory: make the descriptor: %w", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.descriptor = raw
	p.edition++
	close(p.renewed)
	p.renewed = make(chan struct{})
	return nil
}

func (p *Publisher) current() (descriptor []byte, edition int, renewed <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.descriptor, p.edition, p.renewed
}

// register keeps the relay registered with one authority until ctx ends.
func (p *Publisher) register(ctx context.Context, a netdoc.Authority) {
	s := standing{publisher: p, peer: PeerOf(a), log: p.log.With("authority", a.Nickname)}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		descriptor, edition, renewed := p.current()
		timer.Reset(s.post(ctx, descriptor, edition))
		select {
		case <-ctx.Done():
			return
		case <-renewed:
		case <-timer.C:
		}
	}
}

// standing is what one authority made of the relay's descriptors.
type standing struct {
	publisher *Publisher
	peer      Peer
	log       *slog.Logger

	troubled time.Time // since when it does not accept; zero if it does
	accepted int       // the edition last accepted
	said     string    // the trouble that the log has
}

// post offers a descriptor, logs the answer if it is news, and returns after what time to offer it again.
func (s *standing) post(ctx context.Context, descriptor []byte, edition int) time.Duration {
	answer, err := s.publisher.cfg.Client.Post(ctx, s.peer, DescriptorPath, descriptor, maxRegistration)
	var r Registration
	if err == nil {
		r, err = parseRegistration(answer)
	}
	least, most := retryBounds(s.publisher.cfg.Network.Params)
	switch {
	case ctx.Err() != nil:
		return most
	case err != nil:
		s.unanswered(err)
		return s.retry(least, most)
	case r.Result == Refused:
		if r.String() != s.said {
			s.said = r.String()
			s.log.Warn("authority refused the descriptor: " + r.Reason)
		}
		return s.retry(refusedRetry, longestRetry)
	}
	level := slog.LevelInfo
	if r.Result == Known && s.accepted == edition && s.said == "" {
		level = slog.LevelDebug // as expected: it was only offered again
	}
	s.log.Log(ctx, level, "authority accepted the descriptor: "+string(r.Result))
	s.troubled, s.accepted, s.said = time.Time{}, edition, ""
	return s.publisher.repeat()
}

// unanswered logs a failure once for each kind: texts differ in details such as ports.
func (s *standing) unanswered(err error) {
	kind := "authority cannot be reached"
	if status, ok := errors.AsType[*StatusError](err); ok {
		kind = fmt.Sprintf("authority did not judge the descriptor (%d)", status.Code)
	}
	if kind != s.said {
		s.said = kind
		s.log.Warn(kind, "error", err)
	}
}

func (s *standing) retry(least, most time.Duration) time.Duration {
	if s.troubled.IsZero() {
		s.troubled = time.Now()
	}
	return backoff(time.Since(s.troubled), least, most)
}

// repeat returns after what time a descriptor that was accepted is posted again.
func (p *Publisher) repeat() time.Duration {
	rounds := repeatRounds * time.Duration(p.cfg.Network.Params.Round)
	return min(max(rounds, leastRepeat), mostRepeat)
}
