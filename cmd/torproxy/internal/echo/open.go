package echo

import (
	"io"
	"net/http"
	"net/url"
	"strings"
)

// open serves /open: it asks the client to open /opened, by a list of links if that is what the client
// takes (RFC 2483 section 5), else by a Refresh header, which browsers follow by themselves.
func (s *Server) open(w http.ResponseWriter, r *http.Request) {
	link := (&url.URL{Scheme: "http", Host: r.Host, Path: "/opened"}).String()
	if strings.Contains(r.Header.Get("Accept"), "text/uri-list") {
		w.Header().Set("Content-Type", "text/uri-list; charset=utf-8")
		io.WriteString(w, "# This reply asks to open a page.\r\n"+link+"\r\n")
		return
	}
	w.Header().Set("Refresh", "1; url="+link)
	s.show(w, r, http.StatusOK, view{Title: "Open a page", Says: []string{
		"This reply asks to open " + link + ".",
		"torproxy shows the request and asks; torproxy get --open opens it in a browser that has no way past the proxy.",
	}})
}

// opened serves what /open asks for.
func (s *Server) opened(w http.ResponseWriter, r *http.Request) {
	s.show(w, r, http.StatusOK, view{Title: "The page that was asked for", Says: []string{
		"A reply asked for this page, and somebody has opened it.",
		"Look below at what the browser has told: nothing of it should be yours.",
	}, Sent: sentBy(w, r)})
}
