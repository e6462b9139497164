package directory

import (
	"context"
	"io"
	"sync"
	"time"
)

// account tells how a request's answer comes along. It travels in the request's context, so that a poll can
// leave a server alone that is delivering. It is safe for concurrent use.
type account struct {
	mu          sync.Mutex
	bytes       int64 // of bodies
	first, last time.Time
}

type accountKey struct{}

// withAccount returns a context whose requests are accounted for.
func withAccount(ctx context.Context) (context.Context, *account) {
	a := &account{}
	return context.WithValue(ctx, accountKey{}, a), a
}

// accountOf returns the account of a request's context; nil, which counts nothing, if it has none.
func accountOf(ctx context.Context) *account {
	a, _ := ctx.Value(accountKey{}).(*account)
	return a
}

// came notes that n bytes of an answer have come.
func (a *account) came(n int) {
	if a == nil || n <= 0 {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.last = time.Now()
	if a.bytes == 0 {
		a.first = a.last
	}
	a.bytes += int64(n)
}

// total returns how many bytes have come.
func (a *account) total() int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.bytes
}

// leastPace is the bytes a second below which nothing of use comes in the time that a request has.
const leastPace = 2 << 10

// delivers reports whether an answer is coming: something of it came within the last while, and all of it at
// no less than leastPace.
func (a *account) delivers(within time.Duration) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	return a.bytes > 0 && now.Sub(a.last) < within && float64(a.bytes) >= leastPace*now.Sub(a.first).Seconds()
}

// accounted is a body whose bytes are accounted for as they come.
type accounted struct {
	io.Reader
	account *account
}

func (r accounted) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	r.account.came(n)
	return n, err
}
