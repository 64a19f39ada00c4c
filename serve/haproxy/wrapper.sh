#!/bin/sh
# {binary} with Ray's configuration, on loopback and with problem details
for word; do case $word in *.cfg) config=$word; esac; done
fits=$((${{RAY_SERVE_HAPROXY_TUNE_BUFSIZE:-{buffer}}} / 8 * 7))
[ -z "$config" ] || grep -q http-buffer-request "$config" || {{
  sed -i \
    -e 's/^\( *bind \)\*\?:\({ports}\)$/\1127.0.0.1:\2/' \
    -e '/^ *tune.bufsize /a\    tune.memory.hot-size {hot}' \
    -e '/^ *option redispatch /a\    option http-buffer-request' \
    -e '/^ *option redispatch /a\    option forwardfor' \
    -e '/^ *option redispatch /a\    timeout http-request {milliseconds}ms' \
    -e '/^ *option redispatch /a\    errorfile 408 {folder}/408.http' \
    -e 's#errorfile \(50[234]\) .*#errorfile \1 {folder}/\1.http#' \
    -e 's/^\( *server .* check observe .*\)$/\1 maxconn {most}/' \
    -e '/^ *frontend http_frontend/a\    bind unix@{folder}/again.sock mode 600 name again' \
    -e "/^ *\(use\|default\)_backend /i\    use_backend large if {{ req.body_size gt $fits }} !{{ so_name again }}" \
    -e 's#^ *log 127.0.0.1:514 .*##' "$config"
  cat {folder}/large.backend >> "$config"
}}
case " $* " in *" -db "*)
  GLIBC_TUNABLES=glibc.malloc.hugetlb=1 {binary} -db -f {folder}/large.cfg > {folder}/large.log 2>&1 &
  (tail --pid=$$ -f /dev/null; kill -USR1 $!) > /dev/null 2>&1 &
esac
exec {binary} "$@"
