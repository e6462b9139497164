package browser

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// Program is a browser that is installed.
type Program struct {
	Path   string // absolute
	family family
}

// family is a kind of browser, by how it is told where its traffic goes.
type family uint8

const (
	chromium family = iota + 1
	firefox
)

// families say by its name what a program is. Others are not started: nobody knows how to keep them from
// going past the proxy.
var families = map[string]family{
	"chromium": chromium, "chromium-browser": chromium,
	"google-chrome": chromium, "google-chrome-stable": chromium, "google-chrome-beta": chromium, "chrome": chromium,
	"microsoft-edge": chromium, "microsoft-edge-stable": chromium, "microsoft-edge-beta": chromium, "msedge": chromium,
	"firefox": firefox, "firefox-esr": firefox, "firefox-bin": firefox, "firefox-beta": firefox,
}

// usual are the names that are looked for in PATH, best first, and the places of browsers that stand in no
// PATH.
var (
	usual = []string{
		"chromium", "chromium-browser", "google-chrome-stable", "google-chrome", "microsoft-edge-stable", "microsoft-edge",
		"firefox", "firefox-esr",
	}
	usualPlaces = map[string][]string{
		"darwin": {
			"/Applications/Chromium.app/Contents/MacOS/Chromium",
			"/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
			"/Applications/Microsoft Edge.app/Contents/MacOS/Microsoft Edge",
			"/Applications/Firefox.app/Contents/MacOS/firefox",
		},
		"windows": {
			`${LOCALAPPDATA}\Chromium\Application\chrome.exe`,
			`${ProgramFiles}\Google\Chrome\Application\chrome.exe`,
			`${ProgramFiles(x86)}\Microsoft\Edge\Application\msedge.exe`,
			`${ProgramFiles}\Mozilla Firefox\firefox.exe`,
		},
	}
)

// ErrNoBrowser says that none of the browsers that can be kept to the proxy is installed.
var ErrNoBrowser = errors.New("no browser was found that can be kept to the proxy: Chromium, Chrome, Edge or Firefox")

// errSandboxed is about browsers in a sandbox of the distribution's, which have a /tmp of their own.
var errSandboxed = errors.New("it is a snap, which cannot use a profile in a directory of torproxy's")

// Find finds the browser to start. choice is a path, or a name in PATH, and must then be usable; if it is
// "", the first of $BROWSER that is usable is taken, and then the first that is installed.
func Find(choice string) (Program, error) {
	if choice != "" {
		p, err := lookUp(choice)
		if err != nil {
			return Program{}, fmt.Errorf("the browser %q cannot be used: %w", choice, err)
		}
		return p, nil
	}
	wanted := append(commands(os.Getenv("BROWSER")), usual...)
	for _, place := range usualPlaces[runtime.GOOS] {
		wanted = append(wanted, os.Expand(place, os.Getenv))
	}
	for _, name := range wanted {
		if p, err := lookUp(name); err == nil {
			return p, nil
		}
	}
	return Program{}, ErrNoBrowser
}

// lookUp finds a program and says of which family it is.
func lookUp(name string) (Program, error) {
	path, err := exec.LookPath(name)
	if err == nil {
		path, err = filepath.Abs(path)
	}
	if err != nil {
		if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
			return Program{}, errors.New("there is no such program")
		}
		return Program{}, err
	}
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return Program{}, err
	}
	if filepath.Base(real) == "snap" || strings.HasPrefix(real, "/snap/") {
		return Program{}, errSandboxed
	}
	for _, p := range []string{path, real} { // x-www-browser is a link to what it really is
		if f, ok := families[familyName(p)]; ok {
			return Program{Path: path, family: f}, nil
		}
	}
	return Program{}, errors.New("it is none of Chromium, Chrome, Edge and Firefox, and nobody knows how to keep it to the proxy")
}

// familyName is a program's name as families has it.
func familyName(path string) string {
	name := strings.TrimSuffix(strings.ToLower(filepath.Base(path)), ".exe")
	return strings.ReplaceAll(name, " ", "-")
}

// commands reads $BROWSER: commands separated by colons (semicolons on Windows), of which only the
// program's name counts. Their arguments are left out on purpose: one could name a profile or a proxy, and
// %s is where a shell would put the link. Words may be quoted.
func commands(list string) []string {
	var all []string
	for _, command := range splitOutside(list, os.PathListSeparator) {
		if name, ok := firstWord(command); ok {
			all = append(all, name)
		}
	}
	return all
}

// splitOutside splits s at a separator that stands outside of quotes.
func splitOutside(s string, at rune) []string {
	var parts []string
	var quote rune
	start := 0
	for i, c := range s {
		switch {
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case c == '"' || c == '\'':
			quote = c
		case c == at:
			parts = append(parts, s[start:i])
			start = i + 1
		}
	}
	return append(parts, s[start:])
}

// firstWord is the first word of a command, which may be in quotes; nothing is expanded. A word that begins
// with '-' is no program.
func firstWord(command string) (string, bool) {
	command = strings.TrimSpace(command)
	var word strings.Builder
	var quote rune
	for _, c := range command {
		switch {
		case quote != 0 && c == quote:
			quote = 0
		case quote == 0 && (c == '"' || c == '\''):
			quote = c
		case quote == 0 && (c == ' ' || c == '\t'):
			return word.String(), isProgram(word.String())
		default:
			word.WriteRune(c)
		}
	}
	return word.String(), quote == 0 && isProgram(word.String())
}

func isProgram(word string) bool { return word != "" && word[0] != '-' && word != "%s" }
