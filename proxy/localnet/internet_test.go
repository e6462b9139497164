package localnet_test

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go/testutils/simnet"
)

// internet is a simulated one with lossy lines of limited speed: each pair of machines has a line of its
// own in each direction, with a queue before it. It is perfect until harsh is set, so that a network can
// come up first.
type internet struct {
	simnet.PerfectRouter
	loss  float64       // part of all packets that are lost on the way
	rate  float64       // bytes a second of a line, headers included
	queue time.Duration // what would have to wait longer is dropped
	harsh atomic.Bool

	mu   sync.Mutex
	rnd  *rand.Rand
	free map[[2]string]time.Time // when a line will have sent what waits for it
	lost int
}

func newInternet(loss, bitsPerSecond float64, queue time.Duration, seed uint64) *internet {
	return &internet{
		loss: loss, rate: bitsPerSecond / 8, queue: queue,
		rnd: rand.New(rand.NewPCG(seed, 1)), free: map[[2]string]time.Time{},
	}
}

const headers = 28 // of IPv4 and UDP

// SendPacket implements simnet.Router.
func (n *internet) SendPacket(p simnet.Packet) error {
	if !n.harsh.Load() {
		return n.PerfectRouter.SendPacket(p)
	}
	wait, ok := n.admit(p)
	if ok && wait > 0 {
		time.AfterFunc(wait, func() { n.PerfectRouter.SendPacket(p) })
	} else if ok {
		return n.PerfectRouter.SendPacket(p)
	}
	return nil
}

// admit puts a packet on its line; ok is false if it is lost.
func (n *internet) admit(p simnet.Packet) (wait time.Duration, ok bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	now, line := time.Now(), [2]string{p.From.String(), p.To.String()}
	free := n.free[line]
	if free.Before(now) {
		free = now
	}
	if free.Sub(now) > n.queue || n.rnd.Float64() < n.loss {
		n.lost++
		return 0, false
	}
	if n.rate > 0 {
		free = free.Add(time.Duration(float64(len(p.Data)+headers) / n.rate * float64(time.Second)))
		n.free[line] = free
	}
	return free.Sub(now), true
}
