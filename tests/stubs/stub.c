/* Looks names up with the C library it is linked to: glibc, or musl. A line of input is a letter and a name (U, 4, 6:
 * addresses of both families or one, S: SRV records); each gives one line of output. */
#include <arpa/inet.h>
#include <arpa/nameser.h>
#include <netdb.h>
#include <netinet/in.h>
#include <resolv.h>
#include <sys/socket.h>

#include "words.h"

static void addresses(const char *name, int family) {
  struct addrinfo hints = {.ai_flags = AI_CANONNAME, .ai_family = family, .ai_socktype = SOCK_STREAM}, *found;
  int error = getaddrinfo(name, NULL, &hints, &found);
  if (error) {
    printf(" EAI %d %s", error, gai_strerror(error));
    return;
  }
  for (struct addrinfo *one = found; one && count < MOST; one = one->ai_next) {
    const void *octets = one->ai_family == AF_INET ? (void *)&((struct sockaddr_in *)one->ai_addr)->sin_addr
                                                   : (void *)&((struct sockaddr_in6 *)one->ai_addr)->sin6_addr;
    inet_ntop(one->ai_family, octets, words[count++], WIDTH);
  }
  print_sorted();
  printf(" canonical %s", found->ai_canonname ? found->ai_canonname : "-");
  freeaddrinfo(found);
}

static void services(const char *name) {
  static unsigned char answer[65536];
  ns_msg message;
  int length = res_search(name, ns_c_in, ns_t_srv, answer, sizeof answer);
  if (length < 0 || ns_initparse(answer, length, &message)) {
    printf(" h_errno %d", h_errno);
    return;
  }
  for (int i = 0; i < ns_msg_count(message, ns_s_an) && count < MOST; i++) {
    ns_rr record;
    char target[1025];
    if (ns_parserr(&message, ns_s_an, i, &record) || ns_rr_type(record) != ns_t_srv) continue;
    const unsigned char *data = ns_rr_rdata(record);
    if (dn_expand(ns_msg_base(message), ns_msg_end(message), data + 6, target, sizeof target) < 0) continue;
    snprintf(words[count++], WIDTH, "%u-%u-%u-%s", ns_get16(data), ns_get16(data + 2), ns_get16(data + 4), target);
  }
  printf(" rcode %d", ns_msg_getflag(message, ns_f_rcode));
  print_sorted();
}

int main(void) {
  static char line[2048];
  while (fgets(line, sizeof line, stdin)) {
    line[strcspn(line, "\n")] = 0;
    const char *name = line + 2;
    count = 0;
    printf("%s =>", line);
    switch (line[0]) {
    case 'U': addresses(name, AF_UNSPEC); break;
    case '4': addresses(name, AF_INET); break;
    case '6': addresses(name, AF_INET6); break;
    default: services(name);
    }
    printf("\n");
  }
  return 0;
}
