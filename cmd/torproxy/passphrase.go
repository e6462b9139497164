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

// passphrases are where an authority's passphrases come from: a file, or the terminal.
type passphrases struct {
	ctx  context.Context // its end ends a question
	file string          // of --passphrase-file
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
		return nil, errors.New("there is no terminal to ask for the passphrase on: give --passphrase-file")
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

// read reads the file: its first line.
func (p *passphrases) read() ([]byte, error) {
	data, err := state.ReadBounded(p.file, maxPassphrase)
	if err != nil {
		return nil, fmt.Errorf("--passphrase-file: %w", err)
	}
	line, _, _ := bytes.Cut(data, []byte("\n"))
	line = bytes.TrimSuffix(line, []byte("\r"))
	if len(line) == 0 {
		return nil, fmt.Errorf("--passphrase-file: the first line of %s is empty", p.file)
	}
	return line, nil
}

func (p *passphrases) terminal() (fd int, ok bool) {
	f, ok := p.in.(*os.File)
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
		err = errors.New("the passphrase is empty")
	}
	return answer, err
}
