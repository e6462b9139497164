package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/term"

	"torproxy/cmd/torproxy/internal/state"
)

const maxPassphrase = 1 << 10 // bytes

// passphrases are where passphrases and passwords come from: a file, or the terminal.
type passphrases struct {
	ctx  context.Context // its end ends a question
	flag string          // that names the file
	file string          // "": the terminal; "-": stdin
	in   io.Reader
	out  *screen
}

// asker returns who is asked for the passphrase of a sealed key; nil: nobody is there.
func (p *passphrases) asker() state.Passphrase {
	if p.file != "" {
		return p.read
	}
	if _, ok := p.terminal(); !ok {
		return nil
	}
	return func() ([]byte, error) { return p.ask("Passphrase of the authority's key: ") }
}

// choose returns the passphrase to seal a key under. On a terminal it is asked for twice.
func (p *passphrases) choose() ([]byte, error) {
	if p.file != "" {
		return p.read()
	}
	if _, ok := p.terminal(); !ok {
		return nil, p.noTerminal()
	}
	first, err := p.ask("New passphrase for the authority's key: ")
	if err != nil {
		return nil, err
	}
	second, err := p.ask("The same again: ")
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(first, second) {
		return nil, errors.New("the two were not the same")
	}
	return first, nil
}

// answer returns what the file says, or what is typed in answer to a question.
func (p *passphrases) answer(question string) ([]byte, error) {
	if p.file != "" {
		return p.read()
	}
	if _, ok := p.terminal(); !ok {
		return nil, p.noTerminal()
	}
	return p.ask(question)
}

func (p *passphrases) noTerminal() error {
	return fmt.Errorf("there is no terminal to ask on: give --%s", p.flag)
}

// read reads the file: its first line.
func (p *passphrases) read() ([]byte, error) {
	var data []byte
	var err error
	if p.file == "-" {
		data, err = io.ReadAll(io.LimitReader(p.in, maxPassphrase))
	} else {
		data, err = state.ReadBounded(p.file, maxPassphrase)
	}
	if err != nil {
		return nil, fmt.Errorf("--%s: %w", p.flag, err)
	}
	line, _, _ := bytes.Cut(data, []byte("\n"))
	line = bytes.TrimSuffix(line, []byte("\r"))
	if len(line) == 0 {
		return nil, fmt.Errorf("--%s: the first line of %s is empty", p.flag, p.file)
	}
	return line, nil
}

func (p *passphrases) terminal() (fd int, ok bool) { return terminalOf(p.in) }

// terminalOf returns the terminal that in reads, if it does.
func terminalOf(in io.Reader) (fd int, ok bool) {
	f, ok := in.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return 0, false
	}
	return int(f.Fd()), true
}

// ask asks on the terminal, which does not show what is typed.
func (p *passphrases) ask(question string) ([]byte, error) {
	fd, _ := p.terminal()
	before, err := term.GetState(fd)
	if err != nil {
		return nil, err
	}
	fmt.Fprint(p.out, question)
	var answer []byte
	answered := make(chan error, 1)
	go func() { // it ends with the process if nobody answers: reads of a terminal cannot be called off
		typed, err := term.ReadPassword(fd)
		answer = typed
		answered <- err
	}()
	select {
	case err = <-answered:
	case <-p.ctx.Done():
		term.Restore(fd, before)
		fmt.Fprintln(p.out)
		return nil, p.ctx.Err()
	}
	fmt.Fprintln(p.out)
	if err == nil && len(answer) == 0 {
		err = errors.New("nothing was typed")
	}
	return answer, err
}
