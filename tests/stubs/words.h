/* The words of one line of output, in order. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 256, WIDTH = 1200 };

static char words[MOST][WIDTH];
static int count;

static int by_text(const void *one, const void *other) { return strcmp(one, other); }

static void print_sorted(void) {
  qsort(words, count, WIDTH, by_text);
  for (int i = 0; i < count; i++) printf(" %s", words[i]);
}
