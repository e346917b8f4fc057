// Makes fetch ask HTTP_PROXY and HTTPS_PROXY, for versions of Node that do not yet know NODE_USE_ENV_PROXY. It is
// loaded before a program by NODE_OPTIONS=--import, so that the program stays as it is.

import { EnvHttpProxyAgent, setGlobalDispatcher } from "undici";

setGlobalDispatcher(new EnvHttpProxyAgent());
