package echo

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"html/template"
	"io"
	"net/http"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

var (
	//go:embed page.html
	pageHTML string
	//go:embed page.css
	pageCSS string

	pageTemplate = template.Must(template.New("page").Parse(pageHTML))
)

// contentPolicy lets a browser do nothing with our pages but show them in our own style.
var contentPolicy = "default-src 'none'; style-src 'sha256-" + styleHash() + "'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

func styleHash() string {
	sum := sha256.Sum256([]byte(pageCSS))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// view is what a reply says: sentences, and what was sent.
type view struct {
	Title string
	Says  []string
	Sent  *sent // nil: not shown
}

// sent is a request as it arrived.
type sent struct {
	Head  string // the request line and the headers, by name
	Body  string // as text, or in hexadecimal
	Note  string // about the body; "" is nothing
	Facts []fact
}

// echo answers with the request.
func (s *Server) echo(w http.ResponseWriter, r *http.Request) {
	s.show(w, r, http.StatusOK, view{
		Title: "torproxy echo",
		Says:  []string{"This is what arrived here, and what could be learnt from it."},
		Sent:  sentBy(w, r),
	})
}

// sentBy reads a request: as much of its body as is shown.
func sentBy(w http.ResponseWriter, r *http.Request) *sent {
	var head strings.Builder
	fmt.Fprintf(&head, "%s %s %s\nHost: %s\n", r.Method, r.RequestURI, r.Proto, r.Host)
	names := make([]string, 0, len(r.Header))
	for name := range r.Header {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		for _, value := range r.Header[name] {
			fmt.Fprintf(&head, "%s: %s\n", name, shownHeader(name, value))
		}
	}
	for _, coding := range r.TransferEncoding { // net/http takes it out of the headers
		fmt.Fprintf(&head, "Transfer-Encoding: %s\n", coding)
	}
	x := &sent{Head: visible(head.String()), Facts: factsOf(r)}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	switch {
	case err != nil && len(body) == maxBody:
		x.Note = fmt.Sprintf("the first %d bytes; the rest was not read", maxBody)
	case err != nil:
		x.Note = fmt.Sprintf("%d bytes, and then it broke off", len(body))
	case len(body) > 0:
		x.Note = fmt.Sprintf("%d bytes", len(body))
	}
	if utf8.Valid(body) && !bytes.ContainsFunc(body, unprintable) {
		x.Body = string(body)
	} else {
		x.Body = hex.Dump(body)
	}
	return x
}

func unprintable(c rune) bool { return unicode.IsControl(c) && c != '\n' && c != '\r' && c != '\t' }

// visible makes text of a request fit for a terminal.
func visible(s string) string {
	return strings.Map(func(c rune) rune {
		if unprintable(c) {
			return '.'
		}
		return c
	}, strings.ToValidUTF8(s, "."))
}

// show writes a view: a page for browsers, text for everybody else.
func (s *Server) show(w http.ResponseWriter, r *http.Request, status int, v view) {
	var body bytes.Buffer
	kind := "text/plain; charset=utf-8"
	if strings.Contains(r.Header.Get("Accept"), "text/html") {
		kind = "text/html; charset=utf-8"
		if err := pageTemplate.Execute(&body, struct {
			view
			Style template.CSS
		}{v, template.CSS(pageCSS)}); err != nil {
			http.Error(w, "the page cannot be shown", http.StatusInternalServerError)
			return
		}
	} else {
		v.text(&body)
	}
	w.Header().Set("Content-Type", kind)
	w.WriteHeader(status)
	w.Write(body.Bytes())
}

// text writes a view as plain text.
func (v view) text(w *bytes.Buffer) {
	for _, line := range v.Says {
		fmt.Fprintln(w, line)
	}
	if v.Sent == nil {
		return
	}
	fmt.Fprintf(w, "\n%s", v.Sent.Head)
	if v.Sent.Note != "" {
		fmt.Fprintf(w, "\n%s\n", strings.TrimSuffix(v.Sent.Body, "\n"))
		fmt.Fprintf(w, "(the body: %s)\n", v.Sent.Note)
	}
	fmt.Fprint(w, "\nWhat gives you away:\n")
	for _, f := range v.Sent.Facts {
		fmt.Fprintf(w, "  %s: %s\n    %s\n", f.Name, visible(f.Value), f.Tells)
	}
}
