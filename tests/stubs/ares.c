/* Looks names up with c-ares; input and output are those of stub.c. */
#include <ares.h>
#include <arpa/inet.h>
#include <arpa/nameser.h>
#include <netinet/in.h>
#include <sys/select.h>
#include <sys/socket.h>

#include "words.h"

static void addresses(void *unused, int status, int timeouts, struct ares_addrinfo *found) {
  (void)unused, (void)timeouts;
  if (status != ARES_SUCCESS) {
    printf(" %s", ares_strerror(status));
    return;
  }
  for (struct ares_addrinfo_node *one = found->nodes; one && count < MOST; one = one->ai_next) {
    const void *octets = one->ai_family == AF_INET ? (void *)&((struct sockaddr_in *)one->ai_addr)->sin_addr
                                                   : (void *)&((struct sockaddr_in6 *)one->ai_addr)->sin6_addr;
    inet_ntop(one->ai_family, octets, words[count++], WIDTH);
  }
  print_sorted();
  /* A list of aliases, each with what it stands for; the last one stands for the name that has the addresses. */
  const char *canonical = "-";
  for (struct ares_addrinfo_cname *one = found->cnames; one; one = one->next) canonical = one->name;
  printf(" canonical %s", canonical);
  ares_freeaddrinfo(found);
}

static void services(void *unused, int status, int timeouts, unsigned char *answer, int length) {
  (void)unused, (void)timeouts;
  struct ares_srv_reply *found = NULL;
  if (status == ARES_SUCCESS) status = ares_parse_srv_reply(answer, length, &found);
  if (status != ARES_SUCCESS) {
    printf(" %s", ares_strerror(status));
    return;
  }
  for (struct ares_srv_reply *one = found; one && count < MOST; one = one->next)
    snprintf(words[count++], WIDTH, "%u-%u-%u-%s", one->priority, one->weight, one->port, one->host);
  print_sorted();
  ares_free_data(found);
}

static void finish(ares_channel channel) {
  for (;;) {
    fd_set readable, writable;
    struct timeval time;
    FD_ZERO(&readable);
    FD_ZERO(&writable);
    int highest = ares_fds(channel, &readable, &writable);
    if (highest == 0) return;
    select(highest, &readable, &writable, NULL, ares_timeout(channel, NULL, &time));
    ares_process(channel, &readable, &writable);
  }
}

int main(void) {
  static char line[2048];
  ares_channel channel;
  if (ares_library_init(ARES_LIB_INIT_ALL) || ares_init(&channel)) return 1;
  while (fgets(line, sizeof line, stdin)) {
    line[strcspn(line, "\n")] = 0;
    const char *name = line + 2;
    int family = line[0] == 'U' ? AF_UNSPEC : line[0] == '4' ? AF_INET : AF_INET6;
    struct ares_addrinfo_hints hints = {.ai_flags = ARES_AI_CANONNAME, .ai_family = family, .ai_socktype = SOCK_STREAM};
    count = 0;
    printf("%s =>", line);
    if (line[0] == 'S') ares_search(channel, name, ns_c_in, ns_t_srv, services, NULL);
    else ares_getaddrinfo(channel, name, NULL, &hints, addresses, NULL);
    finish(channel);
    printf("\n");
  }
  ares_destroy(channel);
  return 0;
}
