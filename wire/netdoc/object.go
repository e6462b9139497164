package netdoc

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
)

// object reads one JSON object strictly. encoding/json alone takes a key in any case, takes the last of
// repeated keys, and does not say in which field a text was bad.
type object struct {
	path   string // "" at the top
	fields map[string]json.RawMessage
	err    error // the first
}

const (
	required = true
	optional = false
)

// parseObject splits data, which is one JSON object and nothing else, into its fields.
func parseObject(path string, data []byte) (*object, error) {
	o := &object{path: path, fields: make(map[string]json.RawMessage)}
	d := json.NewDecoder(bytes.NewReader(data))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, o.fail("", notJSON(err, "not a JSON object"))
	}
	for d.More() {
		t, err := d.Token()
		key, ok := t.(string)
		if err != nil || !ok {
			return nil, o.fail("", notJSON(err, "not a JSON object"))
		}
		if _, twice := o.fields[key]; twice {
			return nil, o.fail(key, errors.New("stands there twice"))
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return nil, o.fail(key, notJSON(err, ""))
		}
		o.fields[key] = value
	}
	if _, err := d.Token(); err != nil {
		return nil, o.fail("", notJSON(err, ""))
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, o.fail("", errors.New("more behind the end of the JSON object"))
	}
	return o, nil
}

func notJSON(err error, otherwise string) error {
	if err == nil {
		return errors.New(otherwise)
	}
	return fmt.Errorf("not JSON: %w", err)
}

// take moves a field into v, a pointer. A field that is null counts as bad, not as absent.
func (o *object) take(key string, v any, must bool) {
	raw, ok := o.fields[key]
	delete(o.fields, key)
	switch {
	case o.err != nil:
	case !ok && must:
		o.err = o.fail(key, errors.New("is missing"))
	case !ok:
	case string(raw) == "null":
		o.err = o.fail(key, errors.New("is null"))
	default:
		if err := json.Unmarshal(raw, v); err != nil {
			o.err = o.fail(key, plain(err))
		}
	}
}

// end returns the first error; a field that was not taken is one.
func (o *object) end() error {
	if o.err == nil && len(o.fields) > 0 {
		o.err = o.fail(slices.Min(slices.Collect(maps.Keys(o.fields))), errors.New("unknown key"))
	}
	return o.err
}

func (o *object) fail(key string, err error) error {
	switch {
	case o.path == "" && key == "":
		return err
	case o.path == "":
		return fmt.Errorf("%.80s: %w", key, err)
	case key == "":
		return fmt.Errorf("%s: %w", o.path, err)
	default:
		return fmt.Errorf("%s.%.80s: %w", o.path, key, err)
	}
}

// plain says a type error without the names of Go.
func plain(err error) error {
	if bad, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return fmt.Errorf("a JSON %s cannot stand here", bad.Value)
	}
	return err
}
