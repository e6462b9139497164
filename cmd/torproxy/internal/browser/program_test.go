package browser

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestCommands(t *testing.T) {
	for in, want := range map[string][]string{
		"":                              nil,
		"firefox":                       {"firefox"},
		"firefox:chromium":              {"firefox", "chromium"},
		"chromium --proxy-server=x %s":  {"chromium"},
		`"/opt/My Browser/firefox" --x`: {"/opt/My Browser/firefox"},
		`'/opt/a:b/firefox':chromium`:   {"/opt/a:b/firefox", "chromium"},
		"$HOME/firefox;`id`":            {"$HOME/firefox;`id`"},
		"  firefox\t-P me :: %s : -x":   {"firefox"},
		`"unclosed`:                     nil,
		`fire"fox":chromium`:            {"firefox", "chromium"},
	} {
		if got := commands(in); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func FuzzCommands(f *testing.F) {
	f.Add(`"a b":'c' d:-x:%s`)
	f.Fuzz(func(t *testing.T, s string) {
		for _, name := range commands(s) {
			if name == "" || strings.HasPrefix(name, "-") || strings.Count(name, `"`) > strings.Count(s, `"`) {
				t.Errorf("%q gives %q", s, name)
			}
		}
	})
}

// Find takes what --browser says or nothing, the first of $BROWSER that can be kept to the proxy, and then
// what is installed.
func TestFind(t *testing.T) {
	b := newBench(t, "")
	b.program("firefox")
	b.program("google-chrome")
	w3m := b.program("w3m")
	alias := filepath.Join(b.dir, "x-www-browser")
	self, _ := os.Executable()
	real := filepath.Join(t.TempDir(), "firefox-esr")
	if err := os.Link(self, real); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(real, alias); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", b.dir)
	for _, c := range []struct {
		choice, variable, want string
		family                 family
	}{
		{"", "", "google-chrome", chromium},
		{"", "w3m:nonsense:firefox --P x:chromium", "firefox", firefox},
		{"", "w3m %s", "google-chrome", chromium},
		{"firefox", "google-chrome", "firefox", firefox},
		{alias, "", "x-www-browser", firefox},
		{w3m, "firefox", "", 0},
		{"nonsense", "firefox", "", 0},
	} {
		t.Setenv("BROWSER", c.variable)
		p, err := Find(c.choice)
		if c.want == "" {
			if err == nil {
				t.Errorf("%+v: %+v", c, p)
			}
			continue
		}
		if err != nil || p.Path != filepath.Join(b.dir, c.want) || p.family != c.family {
			t.Errorf("%+v: %+v, %v", c, p, err)
		}
	}
	t.Setenv("PATH", t.TempDir())
	t.Setenv("BROWSER", "")
	if _, err := Find(""); !errors.Is(err, ErrNoBrowser) {
		t.Errorf("with nothing installed: %v", err)
	}
}

// A snap has a /tmp of its own: it would not find the profile.
func TestFindRefusesSnaps(t *testing.T) {
	b := newBench(t, "")
	snap := filepath.Join(t.TempDir(), "snap")
	if err := os.WriteFile(snap, []byte("#!"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(snap, filepath.Join(b.dir, "chromium")); err != nil {
		t.Fatal(err)
	}
	if _, err := Find(filepath.Join(b.dir, "chromium")); !errors.Is(err, errSandboxed) {
		t.Errorf("got %v", err)
	}
}
