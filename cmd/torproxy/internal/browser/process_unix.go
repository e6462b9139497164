//go:build unix

package browser

import (
	"io/fs"
	"os"
	"os/exec"
	"syscall"
)

// group gives a command a process group of its own, so that ^C on torproxy's terminal is torproxy's to
// answer and endGroup reaches the browser's helpers too.
func group(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
}

// endGroup kills a command and its helpers. There is nothing to be put in order: the profile goes anyway.
func endGroup(cmd *exec.Cmd) error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }

// owned reports whether a directory is this user's.
func owned(info fs.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(stat.Uid) == os.Getuid()
}
