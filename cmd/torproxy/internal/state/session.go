package state

import (
	"os"
	"runtime"
	"strings"
)

// A session is one process' use of the replay file. Its mark is on stable storage before the first packet
// is peeled:
//
//	"clean\n"       the last session was completed: all that it wrote is on stable storage
//	"boot ID\n"     it was not. Under the same boot the system still has all that was written; under
//	                another one, or where boots have no ID, some of it may be lost
const (
	sessionName = "session"
	markClean   = "clean\n"
	maxMark     = 128
)

// bootID names the time since the machine was started; "" where the system has no name for it.
func bootID() string {
	if runtime.GOOS != "linux" {
		return ""
	}
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(id))
}

func markRunning(boot string) string { return "boot " + boot + "\n" }

// lost reports whether what the session with this mark wrote may be lost.
func lost(mark, boot string) bool {
	return mark != markClean && (boot == "" || mark != markRunning(boot))
}

func (d *Dir) session() (string, error) {
	mark, err := ReadBounded(d.Path(sessionName), maxMark)
	return string(mark), err
}

func (d *Dir) markSession(mark string) error {
	return Replace(d.Path(sessionName), []byte(mark), 0o600)
}
