/* A PKCS #11 module that hands everything on to SoftHSM, and fails as a file says: GRANTD_TEST_MODULE_MODE names it, and it has
   one word, read at each signature: `fail`, `stall`, `wrong`, or anything else for none; with `away` it does not initialize. Each login is a line in the file that
   GRANTD_TEST_MODULE_LOGINS names. */

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef unsigned long value;
/* CK_FUNCTION_LIST: the version, then the functions in the order of PKCS #11 2.40. */
struct functions { unsigned char major, minor; void *of[68]; };
enum { INITIALIZE = 0, LOGIN = 18, SIGN = 43, DEVICE_ERROR = 0x30 };

static struct functions ours;
static value (*real_initialize)(void *);
static value (*real_login)(value, value, void *, value);
static value (*real_sign)(value, void *, value, unsigned char *, value *);

static void mode(char *word) {
  FILE *file = fopen(getenv("GRANTD_TEST_MODULE_MODE"), "r");
  *word = 0;
  if (file) { if (fscanf(file, "%15s", word) != 1) *word = 0; fclose(file); }
}

static value initialize(void *arguments) {
  char word[16];
  mode(word);
  return strcmp(word, "away") ? real_initialize(arguments) : DEVICE_ERROR;
}

static value login(value session, value user, void *pin, value length) {
  FILE *file = fopen(getenv("GRANTD_TEST_MODULE_LOGINS"), "a");
  if (file) { fputs("login\n", file); fclose(file); }
  return real_login(session, user, pin, length);
}

static value sign(value session, void *data, value data_length, unsigned char *signature, value *length) {
  char word[16];
  mode(word);
  if (!strcmp(word, "fail")) return DEVICE_ERROR;
  while (!strcmp(word, "stall")) { usleep(50000); mode(word); }
  value result = real_sign(session, data, data_length, signature, length);
  if (!strcmp(word, "wrong") && result == 0 && signature) signature[*length - 1] ^= 1;
  return result;
}

value C_GetFunctionList(struct functions **list) {
  void *library = dlopen(getenv("GRANTD_TEST_MODULE_REAL"), RTLD_NOW | RTLD_LOCAL);
  if (!library) return DEVICE_ERROR;
  value (*real)(struct functions **) = (value (*)(struct functions **))dlsym(library, "C_GetFunctionList");
  struct functions *theirs;
  if (!real || real(&theirs)) return DEVICE_ERROR;
  memcpy(&ours, theirs, sizeof ours);
  real_initialize = (value (*)(void *))ours.of[INITIALIZE];
  real_login = (value (*)(value, value, void *, value))ours.of[LOGIN];
  real_sign = (value (*)(value, void *, value, unsigned char *, value *))ours.of[SIGN];
  ours.of[INITIALIZE] = (void *)initialize;
  ours.of[LOGIN] = (void *)login;
  ours.of[SIGN] = (void *)sign;
  *list = &ours;
  return 0;
}
