package main

import (
	"encoding/json"
	"io"
	"sync"

	"torproxy/proxy/frontdoor"
)

// events reports to a program: one JSON object per line, and nothing else, on stdout. What failed is told
// to a person on stderr besides.
//
//	{"event":"bootstrap","percent":40,"summary":"..."}     at every change; may go back
//	{"event":"warning","message":"..."}
//	{"event":"ready","socks":"HOST:PORT","http":"HOST:PORT"}     once
//	{"event":"link","id":"1","url":"http://...","host":"...","from":"HOST:PORT"}     a reply asks to open it
//	{"event":"error","code":"port_taken","message":"..."}     the last event, if it fails
//	{"event":"stopped"}     the last event, if it was stopped
type events struct {
	mu     sync.Mutex
	w      io.Writer
	person *person
}

func (e *events) bootstrap(percent int, summary string) {
	e.print(struct {
		Event   string `json:"event"`
		Percent int    `json:"percent"`
		Summary string `json:"summary"`
	}{"bootstrap", percent, summary})
}

func (e *events) warning(message string) {
	e.print(struct {
		Event   string `json:"event"`
		Message string `json:"message"`
	}{"warning", message})
}

func (e *events) ready(at addresses) {
	e.print(struct {
		Event string `json:"event"`
		SOCKS string `json:"socks"`
		HTTP  string `json:"http"`
	}{"ready", at.socks, at.http})
}

func (e *events) link(l frontdoor.Link) {
	e.print(struct {
		Event string `json:"event"`
		ID    string `json:"id"`
		URL   string `json:"url"`
		Host  string `json:"host"`
		From  string `json:"from"`
	}{"link", l.ID, l.URL, l.Host, l.From})
}

func (e *events) failed(f *failure) {
	e.print(struct {
		Event   string `json:"event"`
		Code    string `json:"code"`
		Message string `json:"message"`
	}{"error", f.code, f.Error()})
	e.person.failed(f)
}

func (e *events) stopped() {
	e.print(struct {
		Event string `json:"event"`
	}{"stopped"})
}

// print writes one event with one call. Nobody is left to tell when that fails.
func (e *events) print(event any) {
	e.mu.Lock()
	defer e.mu.Unlock()
	enc := json.NewEncoder(e.w)
	enc.SetEscapeHTML(false)
	enc.Encode(event)
}
