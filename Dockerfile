# One image per component, from nothing but its static binary. The build context is a folder with
# the binaries (`make images` puts them into .build/bin); pick the component with --target:
#
#   docker build --target activator -t lull/activator:dev -f Dockerfile .build/bin
#   buildah bud --isolation chroot --target activator -t lull/activator:dev -f Dockerfile .build/bin

FROM scratch AS queue-proxy
COPY queue-proxy /queue-proxy
USER 65532:65532
ENTRYPOINT ["/queue-proxy"]

FROM scratch AS activator
COPY activator /activator
USER 65532:65532
ENTRYPOINT ["/activator"]

FROM scratch AS autoscaler
COPY autoscaler /autoscaler
USER 65532:65532
ENTRYPOINT ["/autoscaler"]

FROM scratch AS webhook
COPY webhook /webhook
USER 65532:65532
ENTRYPOINT ["/webhook"]

# The suite's own app and load agent; not a part of Lull.
FROM scratch AS sample-app
COPY sample-app /sample-app
USER 65532:65532
ENTRYPOINT ["/sample-app"]
