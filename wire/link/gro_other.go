//go:build !linux

package link

import "net"

// joinDatagrams returns conn: only Linux joins datagrams.
func joinDatagrams(conn net.PacketConn) net.PacketConn { return conn }
