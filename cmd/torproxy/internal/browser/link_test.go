package browser

import (
	"net/url"
	"strings"
	"testing"
)

func TestParseLink(t *testing.T) {
	for _, c := range []struct{ in, out, host string }{
		{"http://example.com", "http://example.com/", "example.com"},
		{"HTTP://EXAMPLE.com:80/A", "http://example.com/A", "example.com"},
		{"https://example.com:443/", "https://example.com/", "example.com"},
		{"https://example.com:80/", "https://example.com:80/", "example.com:80"},
		{"http://bücher.example/straße?ö=ü#ä", "http://xn--bcher-kva.example/stra%C3%9Fe?%C3%B6=%C3%BC#%C3%A4", "xn--bcher-kva.example"},
		{"http://www.аpple.com/", "http://www.xn--pple-43d.com/", "www.xn--pple-43d.com"},
		{"http://xn--bcher-kva.example./", "http://xn--bcher-kva.example./", "xn--bcher-kva.example."},
		{"http://faß.de/", "http://xn--fa-hia.de/", "xn--fa-hia.de"},
		{"http://my_host.example/", "http://my_host.example/", "my_host.example"},
		{"http://r3---sn.example/", "http://r3---sn.example/", "r3---sn.example"},
		{"http://127.0.0.1:7777/open", "http://127.0.0.1:7777/open", "127.0.0.1:7777"},
		{"http://[2001:DB8::1]:8080/", "http://[2001:db8::1]:8080/", "[2001:db8::1]:8080"},
		{"http://[2001:db8:0::1]/", "http://[2001:db8::1]/", "[2001:db8::1]"},
		{"http://example.com/a;b//c/../d?x=1;y=2&z=%zz", "http://example.com/a;b//c/../d?x=1;y=2&z=%zz", "example.com"},
		{`http://example.com/?q="<x>'`, "http://example.com/?q=%22%3Cx%3E%27", "example.com"},
		{"http://example.com?", "http://example.com/?", "example.com"},
		{"http://example.com/%20", "http://example.com/%20", "example.com"},
		{"http://" + strings.Repeat("a.", 100) + "example/", "http://" + strings.Repeat("a.", 100) + "example/", strings.Repeat("a.", 100) + "example"},
		{"http://b%C3%BCcher.example/", "http://xn--bcher-kva.example/", "xn--bcher-kva.example"},
	} {
		l, err := ParseLink(c.in)
		if err != nil || l.String() != c.out || l.Host() != c.host {
			t.Errorf("%q: %q, %q, %v; want %q", c.in, l, l.Host(), err, c.out)
		}
	}
}

func TestParseLinkRefuses(t *testing.T) {
	for in, why := range map[string]string{
		"":                             "empty",
		"example.com":                  "only http",
		"//example.com/":               "only http",
		"-http://example.com/":         "no URL",
		"--proxy-server=x":             "only http",
		"file:///etc/passwd":           "only http",
		"javascript:alert(1)":          "only http",
		"data:text/html,x":             "only http",
		"view-source:http://a/":        "only http",
		"chrome://settings":            "only http",
		"http:example.com":             "no host",
		"http:///path":                 "no host",
		"http://user@example.com/":     "user name",
		"http://a:b@example.com/":      "user name",
		`http://good.example\@bad/`:    "backslash",
		"http://example.com/ x":        "cannot be seen",
		"http://example.com/\n":        "cannot be seen",
		"http://example.com/\x00":      "cannot be seen",
		"http://example.com/\u202eexe": "cannot be seen",
		"http://exam\u200bple.com/":    "cannot be seen",
		"http://example.com/\xff":      "UTF-8",
		"http://2130706433/":           "hides",
		"http://0x7f.1/":               "hides",
		"http://127.1/":                "hides",
		"http://0177.0.0.1/":           "hides",
		"http://1.2.3.4.5/":            "hides",
		"http://１２７.1/":                "hides",
		"http://[fe80::1%25eth0]/":     "zone",
		"http://[::1/":                 "no URL",
		"http://ex!ample.com/":         "no host name",
		"http://a..b/":                 "no host name",
		"http://a.%D0est/":             "no host name",
		"http://a%20b.test/":           "no URL",
		"http://a%E2%80%AEb.test/":     "no host name",
		"http://xn--/":                 "no host name",
		"http://example.com:0/":        "port",
		"http://example.com:65536/":    "port",
		"http://example.com:/":         "port",
		"http://example.com:80a/":      "no URL",
		"http://" + strings.Repeat("a", 64) + ".example/":           "no host name",
		"http://example.com/" + strings.Repeat("a", MaxLink):        "longer",
		"http://example.com/" + strings.Repeat("ä", (MaxLink-20)/2): "longer",
	} {
		if l, err := ParseLink(in); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%q: %q, %v; want %q", in, l, err, why)
		}
	}
}

// Whatever is taken is ASCII that is shown as it stands, is read by others as the same address, and is
// taken again unchanged.
func FuzzParseLink(f *testing.F) {
	for _, s := range []string{
		"http://example.com/", "https://bücher.example:8443/ä?ö#ü", "http://[::1]:80/", "http://1.2.3.4/%zz?;&", "http://a@b/", "http://a\\b/", "http://0x7f.1/?\"",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		l, err := ParseLink(s)
		if err != nil {
			return
		}
		text := l.String()
		if len(text) > MaxLink || !strings.HasPrefix(text, "http") {
			t.Fatalf("%q gives %q", s, text)
		}
		for _, c := range []byte(text) {
			if c <= ' ' || c >= 0x7f || strings.IndexByte("\"<>\\`'", c) >= 0 && c != '\'' {
				t.Fatalf("%q gives %q", s, text)
			}
		}
		u, err := url.Parse(text)
		if err != nil || u.Host != l.Host() || u.User != nil {
			t.Fatalf("%q gives %q, which is read as %+v, %v", s, text, u, err)
		}
		if again, err := ParseLink(text); err != nil || again != l {
			t.Fatalf("%q gives %q, and that %q, %v", s, text, again, err)
		}
	})
}
