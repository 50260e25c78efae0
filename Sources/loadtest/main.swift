RelayLoad.start()
