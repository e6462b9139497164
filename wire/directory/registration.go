package directory

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
)

// Result is what an authority did with a descriptor.
type Result string

// The results.
const (
	Added   Result = "added"         // the relay was not known before
	Known   Result = "already known" // the relay was; the descriptor is held now, new or not
	Refused Result = "refused"       // with a reason
)

// Registration is an authority's answer to a descriptor, sent as JSON with status 200. A request that could
// not be judged at all gets another status instead, and is worth repeating.
type Registration struct {
	Result Result `json:"result"`
	Reason string `json:"reason,omitempty"` // of a refusal: one line, for the relay's operator
}

func (r Registration) String() string {
	if r.Reason == "" {
		return string(r.Result)
	}
	return string(r.Result) + ": " + r.Reason
}

// maxRegistration bounds the answer in bytes.
const maxRegistration = 4 << 10

// RegistrationHandler serves an authority's DescriptorPath for POST. admit judges a descriptor, whose bytes
// nobody has looked at yet, that came from an address; it is called from many goroutines.
func RegistrationHandler(admit func(ctx context.Context, descriptor []byte, from netip.AddrPort) Registration) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost {
			w.Header().Set("Allow", "POST")
			http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
			return
		}
		descriptor, ok := ReadBody(w, r)
		if !ok {
			return
		}
		from, err := netip.ParseAddrPort(r.RemoteAddr)
		if err != nil {
			http.Error(w, "no address", http.StatusBadRequest)
			return
		}
		from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(admit(r.Context(), descriptor, from))
	})
}

// parseRegistration reads an authority's answer. The reason is made fit for a log.
func parseRegistration(answer []byte) (Registration, error) {
	var r Registration
	if err := json.Unmarshal(answer, &r); err != nil {
		return Registration{}, fmt.Errorf("directory: answer to a descriptor: %w", err)
	}
	switch r.Result {
	case Added, Known:
		return Registration{Result: r.Result}, nil
	case Refused:
		return Registration{Result: Refused, Reason: oneLine(r.Reason)}, nil
	default:
		return Registration{}, fmt.Errorf("directory: answer to a descriptor: unknown result %.40q", r.Result)
	}
}
