package directory

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"torproxy/wire/netdoc"
)

const (
	serveTimeout   = time.Minute      // a whole request and its answer: a client that takes longer is stalling
	servedIdle     = 30 * time.Second // a connection without a request: a little more than what clients keep theirs for
	servedLifetime = 10 * time.Minute // then the client dials anew: nobody holds a connection for ever
	servedAtOnce   = 16               // requests of one connection that run at once; further ones wait
	servedOpen     = 64               // and so many are open; a connection with one more is ended: the transport would allow as many as circuits
)

// Serve answers the requests of one accepted connection by h until the client closes it, it has been idle
// for 30 seconds, it is ten minutes old, or ctx ends; then it closes the connection and waits for the
// handlers that run. It is made for link.Config.Directory.
//
// A request and its answer get one minute, headers 8 KiB, and a body what its path allows (the handler sees
// an *http.MaxBytesError beyond it).
func Serve(ctx context.Context, conn *quic.Conn, h http.Handler) {
	// ServeQUICConn would give every stream a goroutine at once, and its header no time-out.
	server := &http3.Server{Handler: limitBody(h), MaxHeaderBytes: maxHeader, IdleTimeout: servedIdle}
	raw, err := server.NewRawServerConn(conn)
	if err != nil {
		return
	}
	end := func() { raw.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeNoError), "") }
	stop := context.AfterFunc(ctx, end)
	defer stop()
	var control sync.WaitGroup
	control.Go(func() { serveControl(conn, raw, &control) })
	serveRequests(conn, raw)
	end()
	control.Wait()
}

// Serving returns Serve for one handler, in the form that link.Config.Directory takes.
func Serving(h http.Handler) func(ctx context.Context, conn *quic.Conn) {
	return func(ctx context.Context, conn *quic.Conn) { Serve(ctx, conn, h) }
}

// serveRequests accepts and answers requests until the connection is dead, has served its time, or opens
// too many of them, and then waits for those that run.
func serveRequests(conn *quic.Conn, raw *http3.RawServerConn) {
	ctx, cancel := context.WithTimeout(conn.Context(), servedLifetime)
	var requests sync.WaitGroup
	defer requests.Wait()
	defer cancel() // those that wait are not begun any more
	slots, open := make(chan struct{}, servedAtOnce), make(chan struct{}, servedOpen)
	for {
		stream, err := conn.AcceptStream(ctx)
		if err != nil {
			return
		}
		select {
		case open <- struct{}{}:
		default:
			raw.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeExcessiveLoad), "")
			return
		}
		stream.SetDeadline(time.Now().Add(serveTimeout))
		requests.Go(func() {
			serveRequest(ctx, stream, raw, slots)
			<-open
		})
	}
}

// serveRequest answers one request when its turn has come, or refuses it if ctx ends before.
func serveRequest(ctx context.Context, stream *quic.Stream, raw *http3.RawServerConn, slots chan struct{}) {
	select {
	case slots <- struct{}{}:
		raw.HandleRequestStream(stream)
		<-slots
	case <-ctx.Done():
		stream.CancelRead(quic.StreamErrorCode(http3.ErrCodeRequestRejected))
		stream.CancelWrite(quic.StreamErrorCode(http3.ErrCodeRequestRejected))
	}
}

// serveControl hands HTTP/3's own one-way streams to it until the connection dies. The transport admits
// three of them.
func serveControl(conn *quic.Conn, raw *http3.RawServerConn, control *sync.WaitGroup) {
	for {
		stream, err := conn.AcceptUniStream(conn.Context())
		if err != nil {
			return
		}
		control.Go(func() { raw.HandleUnidirectionalStream(stream) })
	}
}

// limitBody cuts every request's body at what its path allows.
func limitBody(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, bodyLimit(r.URL.Path))
		h.ServeHTTP(w, r)
	})
}

func bodyLimit(path string) int64 {
	switch path {
	case DescriptorPath:
		return netdoc.MaxDescriptor
	case KeysPath:
		return int64(keysPerRequest * digestSize)
	case VotePath:
		return netdoc.MaxVote
	case EchoPath:
		return netdoc.MaxEcho
	case SignaturePath:
		return netdoc.MaxEndorsement
	default:
		return 0
	}
}

// ReadBody reads the document of a POST. When it returns false it has answered the request: the body was
// too long for its path, or did not arrive.
func ReadBody(w http.ResponseWriter, r *http.Request) ([]byte, bool) {
	body, err := io.ReadAll(r.Body)
	if err == nil {
		return body, true
	}
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		http.Error(w, "document too large", http.StatusRequestEntityTooLarge)
	} else {
		http.Error(w, "document cut short", http.StatusBadRequest)
	}
	return nil, false
}
