package main

import (
	"log/slog"
	"net"
	"os"
	"time"
)

// What systemd is told of a service of Type=notify (sd_notify(3)).
const (
	notifyReady    = "READY=1"
	notifyStopping = "STOPPING=1"
)

// notifySupervisor tells the supervisor that started the process, if it wants to know.
func notifySupervisor(log *slog.Logger, news string) {
	socket := os.Getenv("NOTIFY_SOCKET")
	if socket == "" {
		return
	}
	conn, err := net.DialTimeout("unixgram", socket, time.Second)
	if err != nil {
		log.Warn("the supervisor cannot be told", "news", news, "err", err)
		return
	}
	defer conn.Close()
	conn.SetWriteDeadline(time.Now().Add(time.Second))
	if _, err := conn.Write([]byte(news)); err != nil {
		log.Warn("the supervisor cannot be told", "news", news, "err", err)
	}
}
