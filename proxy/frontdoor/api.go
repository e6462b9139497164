package frontdoor

import (
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"torproxy/wire"
)

// maxAnswer is the longest body of a request for the front door, in bytes.
const maxAnswer = 1 << 10

// methods are the handlers of one path.
type methods map[string]func(w http.ResponseWriter, r *http.Request)

// endpoint finds a path's handlers; nil: there is no such path.
func (d *door) endpoint(path string) methods {
	switch path {
	case "/":
		return methods{"GET": d.page}
	case "/page.css", "/page.js", "/picture.js", "/icon.svg":
		return methods{"GET": d.pageFile}
	case "/proxy.pac":
		return methods{"GET": d.pac}
	case "/metrics":
		if d.Metrics == nil {
			return nil
		}
		return methods{"GET": d.Metrics.ServeHTTP}
	case "/api/status":
		return methods{"GET": func(w http.ResponseWriter, r *http.Request) { writeJSON(w, 200, d.Backend.Status()) }}
	case "/api/circuits":
		return methods{"GET": func(w http.ResponseWriter, r *http.Request) { writeJSON(w, 200, List[Circuit](d.Backend.Circuits())) }}
	case "/api/relays":
		return methods{
			"GET":  func(w http.ResponseWriter, r *http.Request) { writeJSON(w, 200, List[Relay](d.Backend.Relays())) },
			"POST": d.addRelay,
		}
	case "/api/links":
		return methods{"GET": func(w http.ResponseWriter, r *http.Request) { writeJSON(w, 200, List[Link](d.links.all())) }}
	case "/api/why":
		return methods{"GET": d.why}
	case "/api/events":
		return methods{"GET": d.events}
	case "/api/newnym":
		return methods{"POST": d.newIdentity}
	}
	return d.endpointOf(strings.Split(path, "/"))
}

// endpointOf finds the handlers of a path that names one thing of a list: "", "api", list, ID, and perhaps
// what to do with it.
func (d *door) endpointOf(path []string) methods {
	if len(path) < 4 || path[0] != "" || path[1] != "api" || path[3] == "" {
		return nil
	}
	id := path[3]
	switch list, what := path[2], strings.Join(path[4:], "/"); {
	case len(path) == 4 && list == "circuits":
		return methods{"DELETE": func(w http.ResponseWriter, r *http.Request) { d.closeCircuit(w, r, id) }}
	case len(path) == 4 && list == "links":
		return methods{"POST": func(w http.ResponseWriter, r *http.Request) { d.answerLink(w, r, id) }}
	case list == "relays" && what == "stop":
		return methods{"POST": func(w http.ResponseWriter, r *http.Request) { d.steerRelay(w, r, id, d.Backend.StopRelay) }}
	case list == "relays" && what == "start":
		return methods{"POST": func(w http.ResponseWriter, r *http.Request) { d.steerRelay(w, r, id, d.Backend.StartRelay) }}
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
	names := slices.Collect(maps.Keys(m))
	if m["GET"] != nil {
		names = append(names, "HEAD")
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

// newIdentity serves POST /api/newnym. What was pushed, and links that wait, belong to the old identity too.
func (d *door) newIdentity(w http.ResponseWriter, _ *http.Request) {
	d.Backend.NewIdentity()
	d.forwarder.pushes.renew()
	d.links.renew()
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

// why serves GET /api/why?host=HOST.
func (d *door) why(w http.ResponseWriter, r *http.Request) {
	writeJSON(w, http.StatusOK, List[Why](d.Backend.Why(r.URL.Query().Get("host"))))
}

// answerLink serves POST /api/links/ID with {"open": true} or {"open": false}.
func (d *door) answerLink(w http.ResponseWriter, r *http.Request, id string) {
	var answer struct {
		Open *bool `json:"open"`
	}
	body := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxAnswer))
	if err := body.Decode(&answer); err != nil || answer.Open == nil {
		writeError(w, r, http.StatusBadRequest, `say {"open": true} or {"open": false}`)
		return
	}
	if err := d.links.answer(id, *answer.Open); err != nil {
		writeError(w, r, http.StatusNotFound, err.Error())
		return
	}
	writeJSON(w, http.StatusOK, done)
}

// addRelay serves POST /api/relays.
func (d *door) addRelay(w http.ResponseWriter, r *http.Request) {
	id, err := d.Backend.AddRelay()
	if err != nil {
		d.refuseRelay(w, r, err)
		return
	}
	writeJSON(w, http.StatusCreated, map[string]wire.ID{"id": id})
}

// steerRelay serves POST /api/relays/ID/stop and /start.
func (d *door) steerRelay(w http.ResponseWriter, r *http.Request, hex string, steer func(wire.ID) error) {
	id, err := wire.ParseID(hex)
	if err != nil {
		err = ErrNoRelay
	} else {
		err = steer(id)
	}
	if err != nil {
		d.refuseRelay(w, r, err)
		return
	}
	writeJSON(w, http.StatusOK, done)
}

// refuseRelay says why a relay was not added, stopped or started.
func (d *door) refuseRelay(w http.ResponseWriter, r *http.Request, err error) {
	status := http.StatusInternalServerError
	switch {
	case errors.Is(err, ErrNotEmbedded), errors.Is(err, ErrNoRelay):
		status = http.StatusNotFound
	case errors.Is(err, ErrTooMany):
		status = http.StatusConflict
	}
	writeError(w, r, status, plain(err.Error()))
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
