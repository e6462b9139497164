package directory

import (
	"context"
	"net/http"

	"github.com/quic-go/quic-go"
)

// Serving returns Serve for one handler, in the form that link.Config.Directory takes.
func Serving(h http.Handler) func(ctx context.Context, conn *quic.Conn) {
	return func(ctx context.Context, conn *quic.Conn) { Serve(ctx, conn, h) }
}
