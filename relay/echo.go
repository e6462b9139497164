package relay

import (
	"errors"
	"io"
	"time"

	"torproxy/wire"
	"torproxy/wire/mux"
)

// errEchoed ends an echo that had all the bytes it may have.
var errEchoed = errors.New("relay: echo beyond its bound")

// serveEcho returns what an authority sends, to measure how much this relay carries (section 4.1 of
// SPEC.md).
func (r *Relay) serveEcho(st *mux.Stream) wire.Reason {
	defer r.echoes.Add(-1)
	if r.echoes.Add(1) > maxEchoes {
		return wire.ReasonResourceLimit
	}
	st.SetDeadline(time.Now().Add(echoTime))
	st.Connect()
	switch _, err := st.ReadFrom(&bounded{from: st, left: echoBytes}); {
	case err == nil:
		st.CloseWrite()
	case errors.Is(err, errEchoed), errors.Is(err, mux.ErrDeadline):
		return wire.ReasonResourceLimit
	}
	return 0
}

// bounded reads so many bytes, and fails when there are more.
type bounded struct {
	from io.Reader
	left int
}

func (b *bounded) Read(p []byte) (int, error) {
	n, err := b.from.Read(p)
	if b.left -= n; b.left < 0 {
		return 0, errEchoed
	}
	return n, err
}
