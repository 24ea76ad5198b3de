// Looks names up with Go's own resolver; input and output are those of stub.c, and C asks for the canonical name.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sort"
	"strings"
)

func main() {
	resolver := &net.Resolver{PreferGo: true}
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		line := lines.Text()
		words, err := look(resolver, line[0], line[2:])
		sort.Strings(words)
		fmt.Fprintf(out, "%s => %s%s\n", line, strings.Join(words, " "), class(err))
	}
}

func look(resolver *net.Resolver, kind byte, name string) ([]string, error) {
	var words []string
	switch kind {
	case 'S':
		_, found, err := resolver.LookupSRV(context.Background(), "", "", name)
		for _, one := range found {
			words = append(words, fmt.Sprintf("%d-%d-%d-%s", one.Priority, one.Weight, one.Port, one.Target))
		}
		return words, err
	case 'C':
		found, err := resolver.LookupCNAME(context.Background(), name)
		return append(words, found), err
	}
	network := map[byte]string{'U': "ip", '4': "ip4", '6': "ip6"}[kind]
	found, err := resolver.LookupIP(context.Background(), network, name)
	for _, one := range found {
		words = append(words, one.String())
	}
	return words, err
}

// The error without the address of the server.
func class(err error) string {
	var dns *net.DNSError
	if err == nil {
		return ""
	} else if errors.As(err, &dns) {
		return fmt.Sprintf(" %s timeout=%v temporary=%v missing=%v", dns.Err, dns.IsTimeout, dns.IsTemporary, dns.IsNotFound)
	}
	return " " + err.Error()
}
