package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// unit is what the units of the roles differ in.
type unit struct {
	name     string     // of the service and of its state directory
	what     string     // for people
	flags    []string   // that are passed on
	dirFlag  string     // is given the state directory, by the unit
	defaults [][]string // flags with values that a person has to look at, unless they are given
	note     string     // says so
	stop     time.Duration
}

var relayUnit = unit{
	name: "torproxy-relay", what: "torproxy relay",
	flags:    []string{"network", "listen", "advertise", "nickname", "exit-policy", "exit-policy-file", "count", "drain", "metrics"},
	dirFlag:  "data-dir",
	defaults: [][]string{{"network", "/etc/torproxy/network.json"}, {"listen", "0.0.0.0:9001"}, {"advertise", "192.0.2.1:9001"}},
	note:     "Look at --network, --listen and --advertise, which is the address that others reach.",
	stop:     defaultDrain,
}

var dirauthUnit = unit{
	name: "torproxy-dirauth", what: "torproxy directory authority",
	flags:   []string{"listen", "passphrase-file", "metrics"},
	dirFlag: "dir",
	note:    "Copy what torproxy network new has made for this authority to /var/lib/torproxy-dirauth first.",
}

// stopSlack is how long a role may take to stop besides draining.
const stopSlack = 15 * time.Second

// unitText is a unit with the hardening that a role bears: it needs the network, its own directory and
// nothing else. %S is /var/lib.
const unitText = `# systemd unit: write it to /etc/systemd/system/%[1]s.service, then
#   systemctl daemon-reload && systemctl enable --now %[1]s
# %[2]s
[Unit]
Description=%[3]s
Wants=network-online.target
After=network-online.target

[Service]
Type=notify
ExecStart=%[4]s
ExecReload=/bin/kill -HUP $MAINPID
Restart=on-failure
RestartSec=5
TimeoutStopSec=%[5]d
LimitNOFILE=65536
%[6]sDynamicUser=yes
StateDirectory=%[1]s
StateDirectoryMode=0700
UMask=0077
AmbientCapabilities=%[7]s
CapabilityBoundingSet=%[7]s
LockPersonality=yes
MemoryDenyWriteExecute=yes
NoNewPrivileges=yes
PrivateDevices=yes
PrivateTmp=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHome=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
ProtectSystem=strict
RemoveIPC=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallErrorNumber=EPERM
SystemCallFilter=@system-service

[Install]
WantedBy=multi-user.target
`

// printUnit prints the unit of the command line without --print-systemd.
func printUnit(cmd *cobra.Command, u unit) error {
	if cmd.Flags().Changed(u.dirFlag) {
		return wrongUsage(cmd.CommandPath(), fmt.Sprintf("the unit keeps its state in /var/lib/%s: leave --%s out", u.name, u.dirFlag))
	}
	program, err := os.Executable()
	if err != nil {
		return err
	}
	line, credential, err := u.commandLine(cmd, program)
	if err != nil {
		return err
	}
	if drain, err := cmd.Flags().GetDuration("drain"); err == nil {
		u.stop = drain
	}
	capability := ""
	if listen, ok := cmd.Flags().Lookup("listen").Value.(*udpAddress); ok {
		if port := listen.addr.Port(); port > 0 && port < 1024 {
			capability = "CAP_NET_BIND_SERVICE"
		}
	}
	note := u.note
	if cmd.Flags().Changed("listen") {
		note = "Nothing in it has to be changed."
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), unitText, u.name, note, u.what, line, int((u.stop + stopSlack).Seconds()), credential, capability)
	return err
}

// commandLine is ExecStart's, and the line that gives the passphrase to the service.
func (u *unit) commandLine(cmd *cobra.Command, program string) (line, credential string, err error) {
	words := []string{program, cmd.Name()}
	for _, d := range u.defaults {
		// Whoever says where to listen knows whether others reach that.
		if changed := cmd.Flags().Changed; !changed(d[0]) && !(d[0] == "advertise" && changed("listen")) {
			words = append(words, "--"+d[0], d[1])
		}
	}
	for _, name := range u.flags {
		f := cmd.Flags().Lookup(name)
		if !f.Changed {
			continue
		}
		value := f.Value.String()
		if name == "network" || strings.HasSuffix(name, "-file") {
			if value, err = filepath.Abs(value); err != nil {
				return "", "", err
			}
		}
		if name == "passphrase-file" {
			credential = "LoadCredential=passphrase:" + value + "\n"
			continue
		}
		words = append(words, "--"+name, value)
	}
	for i := range words {
		words[i] = unitWord(words[i])
	}
	words = append(words, "--"+u.dirFlag, "%S/"+u.name)
	if credential != "" {
		words = append(words, "--passphrase-file", "%d/passphrase")
	}
	return strings.Join(words, " "), credential, nil
}

// unitWord writes one argument as systemd reads it.
func unitWord(s string) string {
	quoted := strings.NewReplacer(`\`, `\\`, `"`, `\"`, `%`, `%%`, `$`, `$$`).Replace(s)
	if quoted == s && s != "" && !strings.ContainsAny(s, " \t';*") {
		return s
	}
	return `"` + quoted + `"`
}
