package relay

import (
	"fmt"
	"net/url"
	"strings"
	"testing"

	"torproxy/wire"
)

func TestRefreshURL(t *testing.T) {
	for value, want := range map[string]string{
		"0; url=/next":               "/next",
		"5;URL = '/a b' x":           "/a b",
		"5,url=\"/q\"":               "/q",
		"5; url='/open":              "/open",
		" \t3 http://b.test/":        "http://b.test/",
		"0.5; url=x":                 "x",
		"3; /path":                   "/path",
		"3; urls/list":               "urls/list",
		"3":                          "",
		"3;":                         "",
		"3; url=":                    "",
		"x; url=/next":               "",
		"; url=/next":                "",
		"":                           "",
		"3x; url=/next":              "",
		"0; url=javascript:alert(1)": "javascript:alert(1)", // and is refused behind
	} {
		if got := refreshURL(value); got != want {
			t.Errorf("%q: %q, want %q", value, got, want)
		}
	}
}

func TestOpenable(t *testing.T) {
	base, err := url.Parse("http://a.test:8080/dir/page?q")
	if err != nil {
		t.Fatal(err)
	}
	for ref, want := range map[string]string{
		"next":                        "http://a.test:8080/dir/next",
		"/x?y;z=%zz":                  "http://a.test:8080/x?y;z=%zz",
		"//b.test/x":                  "http://b.test/x",
		"https://b.test:444/x":        "https://b.test:444/x",
		"HTTP://b.test/x#frag":        "http://b.test/x",
		"http://[::1]/":               "http://[::1]/",
		"http://127.0.0.1/":           "http://127.0.0.1/",
		"/\u00e4 b":                   "http://a.test:8080/%C3%A4%20b",
		"":                            "",
		"#top":                        "",
		"javascript:alert(1)":         "",
		"data:text/html,x":            "",
		"file:///etc/passwd":          "",
		"ftp://b.test/":               "",
		"http://user@b.test/":         "",
		"http://a.test:pw@b.test/":    "",
		"http:opaque":                 "",
		"http:///x":                   "",
		"http://b\u0435.test/":        "",
		"http://b.test%2f@c.test/":    "",
		"http://2130706433/":          "",
		"http://0x7f.1/":              "",
		"http://b.test/\r\nX: y":      "",
		"http://b.test/?\u00e4":       "",
		"http://b.test/%":             "",
		"http://b.test:99x/":          "",
		strings.Repeat("x", 1<<11+1):  "",
		strings.Repeat("\u00e4", 900): "",
	} {
		got, ok := openable(base, ref)
		if ok != (want != "") || ok && got != want {
			t.Errorf("%q: %q, %v, want %q", ref, got, ok, want)
		}
	}
}

// TestOpenMarks checks, through a circuit, which replies are marked, and that nothing else of them changes.
func TestOpenMarks(t *testing.T) {
	list := "# links\r\nhttp://b.test/1\r\n\r\nhttps://b.test/2\njavascript:alert(1)\r\n"
	reply := func(kind, body string) string {
		return fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s", kind, len(body), body)
	}
	const refresh = "HTTP/1.1 200 OK\r\nRefresh: 5; url=/next\r\nContent-Length: 2\r\n\r\nok"
	for name, test := range map[string]struct {
		method, path, lines, reply string
		want                       []string
	}{
		"refresh":             {"GET", "/dir/page?q", "", refresh, []string{"http://HOST/next"}},
		"refresh, HEAD":       {"HEAD", "/", "", "HTTP/1.1 200 OK\r\nRefresh: 5; url=next\r\n\r\n", []string{"http://HOST/next"}},
		"strange path":        {"GET", "/%zz", "", refresh, []string{"http://HOST/next"}},
		"refresh of itself":   {"GET", "/", "", "HTTP/1.1 200 OK\r\nRefresh: 5\r\nContent-Length: 2\r\n\r\nok", nil},
		"navigation":          {"GET", "/", "Sec-Fetch-Mode: navigate\r\n", refresh, nil},
		"document":            {"GET", "/", "Sec-Fetch-Dest: document\r\n", refresh, nil},
		"a browser's request": {"GET", "/", "Sec-Fetch-Mode: cors\r\nSec-Fetch-Dest: empty\r\n", refresh, []string{"http://HOST/next"}},
		"list":                {"GET", "/", "", reply("text/uri-list; charset=utf-8", list), []string{"http://b.test/1", "https://b.test/2"}},
		"list of one line":    {"GET", "/", "", reply("Text/URI-List", "http://b.test/1"), []string{"http://b.test/1"}},
		"list, navigation":    {"GET", "/", "Sec-Fetch-Mode: navigate\r\n", reply("text/uri-list", list), nil},
		"list, HEAD":          {"HEAD", "/", "", "HTTP/1.1 200 OK\r\nContent-Type: text/uri-list\r\nContent-Length: 20\r\n\r\n", nil},
		"long list":           {"GET", "/", "", reply("text/uri-list", strings.Repeat("http://b.test/1\r\n", 1000)), nil},
		"many links":          {"GET", "/", "", reply("text/uri-list", strings.Repeat("http://b.test/1\r\n", 20)), []string{"http://b.test/1", "http://b.test/1", "http://b.test/1", "http://b.test/1", "http://b.test/1", "http://b.test/1", "http://b.test/1", "http://b.test/1"}},
		"another type":        {"GET", "/", "", reply("text/plain", list), nil},
		"encoded":             {"GET", "/", "", strings.Replace(reply("text/uri-list", list), "\r\n", "\r\nContent-Encoding: br\r\n", 1), nil},
		"not found":           {"GET", "/", "", strings.Replace(reply("text/uri-list", list), "200", "404", 1), nil},
		"of its own":          {"GET", "/", "", "HTTP/1.1 200 OK\r\nTorproxy-Open: http://b.test/\r\nContent-Length: 2\r\n\r\nok", nil},
	} {
		t.Run(name, func(t *testing.T) {
			server := serveRaw(t, test.reply)
			onLoopback(t, nil, func(b *bed) {
				v := b.visit(b.session(0, 1), server.addr(), fmt.Sprintf("%s %s HTTP/1.1\r\nHost: %s\r\n%s\r\n", test.method, test.path, server.addr(), test.lines))
				resp, body := v.page(test.method)
				got := strings.ReplaceAll(fmt.Sprint(resp.Header[openField]), server.addr(), "HOST")
				if got != fmt.Sprint(test.want) {
					t.Errorf("marked %v, want %v", got, test.want)
				}
				if _, want, _ := strings.Cut(test.reply, "\r\n\r\n"); body != want {
					t.Errorf("the body is %q, want %q", body, want)
				}
			})
		})
	}
}

// TestOpenCutShort checks that a list that breaks off is not passed on as whole.
func TestOpenCutShort(t *testing.T) {
	server := serveRaw(t, "HTTP/1.1 200 OK\r\nContent-Type: text/uri-list\r\nContent-Length: 50\r\n\r\nhttp://b.test/1\r\n\x00")
	onLoopback(t, nil, func(b *bed) {
		v := b.get(b.session(0, 1), server.addr(), "/", "")
		resp := v.head("GET")
		buf := make([]byte, 50)
		n, _ := resp.Body.Read(buf)
		if got := string(buf[:n]); got != "http://b.test/1\r\n" {
			t.Errorf("got %q", got)
		}
		v.fails("the rest", wire.ReasonReset)
	})
}

// FuzzOpenable checks that what is shown to a person is always one whole, plain link.
func FuzzOpenable(f *testing.F) {
	for _, s := range []string{"0; url=/next", "5;URL='http://b.test/x?y#z'", "1 http://user@c.test/", "3,//d.test:81", "0;url=http://[::1]/"} {
		f.Add(s)
	}
	base := &url.URL{Scheme: "http", Host: "a.test", Path: "/"}
	f.Fuzz(func(t *testing.T, value string) {
		link, ok := openable(base, refreshURL(value))
		if !ok {
			return
		}
		u, err := url.Parse(link)
		if err != nil || u.User != nil || u.Scheme != "http" && u.Scheme != "https" || !isAuthority(u.Host) || u.String() != link {
			t.Errorf("%q gives %q: %v", value, link, err)
		}
		if len(link) > maxOpenLink || strings.ContainsFunc(link, func(c rune) bool { return c <= ' ' || c > '~' }) {
			t.Errorf("%q gives %q", value, link)
		}
	})
}
