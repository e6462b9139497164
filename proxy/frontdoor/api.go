package frontdoor

import (
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"
)

// methods are the handlers of one path.
type methods map[string]func(w http.ResponseWriter, r *http.Request)

// endpoint finds a path's handlers; nil: there is no such path.
func (d *door) endpoint(path string) methods {
	switch path {
	case "/":
		return methods{"GET": d.page}
	case "/proxy.pac":
		return methods{"GET": d.pac}
	case "/api/status":
		return methods{"GET": func(w http.ResponseWriter, r *http.Request) { writeJSON(w, 200, d.Backend.Status()) }}
	case "/api/circuits":
		return methods{"GET": func(w http.ResponseWriter, r *http.Request) { writeJSON(w, 200, List[Circuit](d.Backend.Circuits())) }}
	case "/api/relays":
		return methods{"GET": func(w http.ResponseWriter, r *http.Request) { writeJSON(w, 200, List[Relay](d.Backend.Relays())) }}
	case "/api/newnym":
		return methods{"POST": d.newIdentity}
	}
	if id, ok := strings.CutPrefix(path, "/api/circuits/"); ok && id != "" && !strings.Contains(id, "/") {
		return methods{"DELETE": func(w http.ResponseWriter, r *http.Request) { d.closeCircuit(w, r, id) }}
	}
	return nil
}

// answer serves a request for the front door itself.
func (d *door) answer(w http.ResponseWriter, r *http.Request) {
	c := http.NewResponseController(w)
	c.SetReadDeadline(time.Now().Add(answerTimeout))
	c.SetWriteDeadline(time.Now().Add(answerTimeout))
	if status, problem := d.guard(w.Header(), r); status != 0 {
		writeError(w, r, status, problem)
		return
	}
	allowed := d.endpoint(r.URL.Path)
	if allowed == nil {
		writeError(w, r, http.StatusNotFound, "there is nothing here; http://"+d.addr.String()+"/ says what there is")
		return
	}
	method := r.Method
	if method == http.MethodHead {
		method = http.MethodGet
	}
	handle, ok := allowed[method]
	if !ok {
		w.Header().Set("Allow", allowed.String())
		writeError(w, r, http.StatusMethodNotAllowed, r.Method+" is not for this path, but "+allowed.String())
		return
	}
	handle(w, r)
}

// String is the value of an Allow header.
func (m methods) String() string {
	names := slices.Sorted(maps.Keys(m))
	if m["GET"] != nil {
		names = append(names, "HEAD")
	}
	return strings.Join(names, ", ")
}

// newIdentity serves POST /api/newnym. Connections to destinations that are kept for later requests belong
// to the old identity too.
func (d *door) newIdentity(w http.ResponseWriter, _ *http.Request) {
	d.Backend.NewIdentity()
	d.forwarder.renew()
	writeJSON(w, http.StatusOK, done)
}

// closeCircuit serves DELETE /api/circuits/ID.
func (d *door) closeCircuit(w http.ResponseWriter, r *http.Request, id string) {
	if !d.Backend.CloseCircuit(id) {
		writeError(w, r, http.StatusNotFound, "there is no such circuit (any more)")
		return
	}
	writeJSON(w, http.StatusOK, done)
}

// done is the answer to a request that changed something.
var done = map[string]bool{"done": true}

// writeJSON answers with v.
func writeJSON(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		http.Error(w, "the answer cannot be shown", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	w.Write(append(body, '\n'))
}

// writeError answers with a sentence: as {"error": ...} below /api/, else as text.
func writeError(w http.ResponseWriter, r *http.Request, status int, problem string) {
	if strings.HasPrefix(r.URL.Path, "/api/") {
		writeJSON(w, status, map[string]string{"error": problem})
		return
	}
	http.Error(w, "torproxy: "+problem+".", status)
}
